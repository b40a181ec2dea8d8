//! Rows that a stream has not sent and no longer can, and readers that lose their place in memory.

use diesel_async::SimpleAsyncConnection;
use tonic::Code;
use tonic_types::StatusExt;

use super::{Watching, all, commit_rows, from_start, ids, make_moves};
use crate::support::{App, Tenant};

/// Ends the connections on which processes read the journal.
async fn end_tails(app: &App) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE '%journal_floors%'
                  AND pid <> pg_backend_pid()";
    app.schema.connect().await.batch_execute(end).await.unwrap();
}

#[tokio::test]
async fn a_stream_goes_on_after_its_connection_to_the_database_broke() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let mut made = make_moves(&tenant, 1).await;
    let mut rows = watching.transitions(1).await;
    for _ in 0..3 {
        end_tails(&app).await;
        made.extend(make_moves(&tenant, 2).await);
        rows.extend(watching.transitions(2).await);
    }
    assert_eq!(ids(&rows), ids(&made));
}

#[tokio::test]
async fn a_stream_ends_if_a_failover_lost_its_last_row() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let made = make_moves(&tenant, 2).await;
    watching.transitions(2).await;
    // As after the promotion of a standby that lacked the row.
    let lose = format!("DELETE FROM fsm_transitions WHERE id = '{}'", made[1].id);
    app.schema
        .connect()
        .await
        .batch_execute(&lose)
        .await
        .unwrap();
    end_tails(&app).await;
    let (_, status) = watching.end().await;
    assert_eq!(status.code(), Code::OutOfRange);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "RESUME_POINT_GONE");
}

#[tokio::test]
async fn a_slow_reader_reads_what_is_no_longer_in_memory() {
    const ROWS: usize = 12_000;
    let (app, tenant) = App::with_tenant().await;
    let mut slow = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let quick = Tenant::clone(&tenant);
    let mut quick = Watching::open(&quick, all(&quick)).await.unwrap();
    // More than the window of a stream and the rows in memory together.
    for _ in 0..3 {
        commit_rows(&app, &tenant, ROWS).await;
    }
    let rows = quick.transitions(3 * ROWS).await;
    assert_eq!(ids(&slow.transitions(3 * ROWS).await), ids(&rows));
    let last = make_moves(&tenant, 1).await;
    assert_eq!(ids(&slow.transitions(1).await), ids(&last));
    let mut journal = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    assert_eq!(ids(&journal.transitions(3 * ROWS).await), ids(&rows));
}
