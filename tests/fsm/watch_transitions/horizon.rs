//! Open transactions, which keep later rows from being sent.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use tokio::time::Instant;

use super::{Watching, after, all, from_start, ids, make_moves};
use crate::support::{App, Tenant, eventually};

/// Interval at which the journal is read even if nothing says that it has changed.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the number of queries of single callers, such as the pages of a stream.
fn queries(app: &App) -> f64 {
    app.figures()
        .sum("bridgebook_query_wait_seconds_count", &[])
}

/// Opens a transaction that has a number.
async fn open_transaction(app: &App) -> diesel_async::AsyncPgConnection {
    let mut connection = app.schema.connect().await;
    let begin = "BEGIN; SELECT pg_current_xact_id()";
    connection.batch_execute(begin).await.unwrap();
    connection
}

/// Waits until the watch has read the database again, as it does every 5 s.
async fn wait_for_poll(tenant: &Tenant) {
    let mut watching = Watching::open(tenant, all(tenant)).await.unwrap();
    watching.bookmark().await;
}

#[tokio::test]
async fn rows_of_overlapping_transactions_come_when_the_last_one_ends() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    // Each time another row is committed while the transaction is open that the row before has to wait for.
    for _ in 0..3 {
        let mut first = open_transaction(&app).await;
        let mut made = make_moves(&tenant, 1).await;
        let mut second = open_transaction(&app).await;
        made.extend(make_moves(&tenant, 1).await);
        first.batch_execute("COMMIT").await.unwrap();
        let mut rows = watching.transitions(1).await;
        made.extend(make_moves(&tenant, 1).await);
        second.batch_execute("COMMIT").await.unwrap();
        // Transactions of other tests delay rows, too.
        app.wait_for_horizon(&made[2].position).await;
        let released = Instant::now();
        rows.extend(watching.transitions(2).await);
        assert!(released.elapsed() < POLL_INTERVAL, "found by the poll only");
        assert_eq!(ids(&rows), ids(&made));
    }
}

#[tokio::test]
async fn a_watch_after_a_row_that_waits_does_not_keep_others_busy() {
    let (app, tenant) = App::with_tenant().await;
    let old = make_moves(&tenant, 1).await;
    let mut open = open_transaction(&app).await;
    let waiting = make_moves(&tenant, 1).await;
    let position = &waiting[0].position;
    let mut after_it = Watching::open(&tenant, after(&tenant, position))
        .await
        .unwrap();
    let mut whole = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    assert_eq!(ids(&whole.transitions(1).await), ids(&old));
    let before = queries(&app);
    wait_for_poll(&tenant).await;
    let made = queries(&app) - before;
    assert!(made < 20.0, "{made} queries while nothing happens");

    open.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ids(&whole.transitions(1).await), ids(&waiting));
    let next = make_moves(&tenant, 1).await;
    assert_eq!(ids(&after_it.transitions(1).await), ids(&next));
    assert_eq!(ids(&whole.transitions(1).await), ids(&next));
}

#[tokio::test]
async fn an_open_transaction_that_no_row_waits_for_costs_nothing() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let open = open_transaction(&app).await;
    wait_for_poll(&tenant).await;
    let reads = || app.figures().sum("bridgebook_feed_reads_total", &[]);
    let before = reads();
    wait_for_poll(&tenant).await;
    let made = reads() - before;
    assert!(made < 10.0, "{made} reads while nothing happens");
    let ages = "bridgebook_feed_horizon_age_seconds";
    assert!(app.figures().sum(ages, &[]) == 0.0, "no row waits");

    let waiting = make_moves(&tenant, 1).await;
    eventually("the age counts", async || {
        let age = app.figures().sum(ages, &[("watched", "namespaces")]);
        (age > 0.0).then_some(())
    })
    .await;
    drop(open);
    assert_eq!(ids(&watching.transitions(1).await), ids(&waiting));
}
