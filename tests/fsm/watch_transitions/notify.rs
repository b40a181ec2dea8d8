//! Notifications between replicas.

use std::time::Duration;

use bridgebook::proto::v1::watch_transitions_response::Message;
use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, NoTls};

use super::{PATIENCE, Watching, all, horizon::POLL_INTERVAL, make_moves};
use crate::support::{App, Tenant};

/// Returns the contents of the notifications on a channel of the journal.
async fn listen(
    app: &App,
    name: &str,
) -> (tokio_postgres::Client, stream::BoxStream<'static, String>) {
    let (client, mut connection) = tokio_postgres::connect(&app.schema.url(), NoTls)
        .await
        .unwrap();
    let messages = stream::poll_fn(move |context| connection.poll_message(context));
    let payloads = messages.filter_map(|message| {
        future::ready(match message {
            // The id of the process comes first.
            Ok(AsyncMessage::Notification(it)) => {
                Some(it.payload().split_once(' ').unwrap().1.to_owned())
            }
            _ => None,
        })
    });
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(payloads.for_each(move |payload| {
        let _ = sender.send(payload);
        future::ready(())
    }));
    let table = client
        .query_one("SELECT 'fsm_transitions'::regclass::oid", &[])
        .await
        .unwrap();
    let table: u32 = table.get(0);
    client
        .batch_execute(&format!("LISTEN bridgebook_{table}_{name}"))
        .await
        .unwrap();
    let payloads = stream::unfold(receiver, async |mut receiver| {
        let payload = receiver.recv().await?;
        Some((payload, receiver))
    });
    (client, payloads.boxed())
}

#[tokio::test]
async fn a_replica_tells_others_of_changes_while_they_watch() {
    let writer = App::start().await;
    let watcher = writer.replica().await;
    let tenant = writer.tenant();
    let (_client, mut changes) = listen(&writer, "changes").await;
    make_moves(&tenant, 3).await;
    let of_watcher = Tenant {
        channel: watcher.channel.clone(),
        ..tenant.clone()
    };
    let mut watching = Watching::open(&of_watcher, all(&of_watcher)).await.unwrap();
    // The writer has to hear that the other one watches.
    let writing = tokio::spawn({
        let tenant = tenant.clone();
        async move {
            loop {
                make_moves(&tenant, 1).await;
            }
        }
    });
    let heard = tokio::time::timeout(PATIENCE, changes.next()).await;
    writing.abort();
    assert_eq!(heard.unwrap().unwrap(), tenant.namespace, "none before");
    let mut found_after = Duration::ZERO;
    // If only the poll finds rows, it finds the second one an interval after the first one.
    for _ in 0..2 {
        let made = make_moves(&tenant, 1).await;
        // Transactions of other tests delay rows, too.
        writer.wait_for_horizon(&made[0].position).await;
        let released = Instant::now();
        loop {
            if let Message::Transitions(it) = watching.message().await.unwrap()
                && it.transitions.contains(&made[0])
            {
                break;
            }
        }
        found_after = released.elapsed();
    }
    assert!(found_after < POLL_INTERVAL / 2, "found by the poll only");
}

#[tokio::test]
async fn replicas_that_watch_tell_each_change_once() {
    let writer = App::start().await;
    let other = writer.replica().await;
    let tenant = writer.tenant();
    let on_other = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let (_client, mut changes) = listen(&writer, "changes").await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let mut on_other = Watching::open(&on_other, all(&on_other)).await.unwrap();
    // Until the writer has heard that the other one watches.
    let mut written = 0;
    while changes.next().now_or_never().is_none() {
        make_moves(&tenant, 1).await;
        written += 1;
    }
    watching.transitions(written).await;
    on_other.transitions(written).await;
    while changes.next().now_or_never().is_some() {}

    make_moves(&tenant, 1).await;
    watching.transitions(1).await;
    on_other.transitions(1).await;
    // Notifications come every 10 ms, and bookmarks after seconds.
    watching.bookmark().await;
    on_other.bookmark().await;
    let mut told = 0;
    while changes.next().now_or_never().is_some() {
        told += 1;
    }
    // The last one of before may have come late.
    assert!(
        (1..=2).contains(&told),
        "{told} notifications of one change"
    );
}

#[tokio::test]
async fn a_process_whose_patterns_and_namespaces_are_watched_tells_itself_nothing() {
    let (app, tenant) = App::with_tenant().await;
    let pattern = Tenant {
        namespace: format!("{}*", tenant.namespace),
        ..tenant.clone()
    };
    let (_client, mut changes) = listen(&app, "changes").await;
    let mut of_pattern = Watching::open(&pattern, all(&pattern)).await.unwrap();
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    // Both say that they watch, and hear each other, before the first bookmark.
    watching.bookmark().await;
    make_moves(&tenant, 1).await;
    watching.transitions(1).await;
    of_pattern.transitions(1).await;
    watching.bookmark().await;
    assert_eq!(changes.next().now_or_never(), None);
}
