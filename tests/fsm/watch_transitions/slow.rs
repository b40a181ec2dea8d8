//! Clients that do not take their messages.

use std::{collections::HashSet, time::Duration};

use bridgebook::proto::v1::{
    WatchTransitionsRequest, fsm_service_client::FsmServiceClient,
    watch_transitions_response::Message,
};
use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;
use tonic_types::StatusExt;

use super::{Watching, after, all, commit_rows, from_start, ids, make_moves};
use crate::support::{App, Failure, Tenant, connect, eventually, failure};

#[tokio::test]
async fn a_client_may_leave_one_stream_of_a_connection_unread_and_goes_on_after_it() {
    // They do not fit into the window of a stream.
    const ROWS: usize = 30_000;
    let (app, tenant) = App::with_tenant().await;
    commit_rows(&app, &tenant, ROWS).await;
    let mut read = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    let unread = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    let opened_at = Instant::now();
    read.transitions(ROWS).await;
    // A connection of which nothing is read is closed after 20 s to 21 s.
    while opened_at.elapsed() < Duration::from_secs(22) {
        read.bookmark().await;
    }
    let new = make_moves(&tenant, 1).await;
    assert_eq!(ids(&read.transitions(1).await), ids(&new));
    let (messages, status) = Box::pin(unread.end()).await;
    let position = status.get_details_error_info().unwrap().metadata["position"].clone();
    assert_eq!(
        failure(Err::<(), _>(status)).reason,
        "CONSUMER_TOO_SLOW",
        "{} messages",
        messages.len()
    );
    let mut rows = Vec::new();
    for message in messages {
        if let Message::Transitions(it) = message {
            rows.extend(it.transitions);
        }
    }
    assert!(rows.len() < ROWS, "all rows were sent at once");
    assert_eq!(position, rows.last().unwrap().position);
    let mut resumed = Watching::open(&tenant, after(&tenant, &position))
        .await
        .unwrap();
    rows.extend(resumed.transitions(ROWS + 1 - rows.len()).await);
    let distinct: HashSet<_> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(distinct.len(), ROWS + 1);
    read.bookmark().await;
}

#[tokio::test]
async fn streams_end_where_they_are_if_unread_messages_of_their_token_use_up_the_memory() {
    const ROWS: usize = 30_000;
    let app = App::start_with(|config| config.limits.request_bytes = Some(4_000_000));
    let app = app.await;
    let tenant = app.tenant();
    commit_rows(&app, &tenant, ROWS).await;
    let mut unread = Vec::new();
    for _ in 0..30 {
        // Each of them has a connection of its own, and holds a message that its client does not take.
        let tenant = Tenant {
            channel: connect(app.address),
            ..tenant.clone()
        };
        unread.push(Watching::open(&tenant, from_start(&tenant)).await.unwrap());
    }
    let mut ended = 0;
    for mut watching in unread {
        let mut rows = 0;
        while rows < ROWS {
            match watching.message().await {
                Ok(Message::Transitions(it)) => rows += it.transitions.len(),
                Ok(_) => {}
                Err(status) => {
                    let details = status.get_details_error_info().unwrap();
                    assert_eq!(details.reason, "CONSUMER_TOO_SLOW", "{status:?}");
                    assert_eq!(details.metadata["position"], watching.position);
                    assert!(status.get_details_retry_info().is_some());
                    ended += 1;
                    break;
                }
            }
        }
    }
    assert!(ended > 0, "there was memory for all");
}

#[tokio::test]
async fn a_client_that_does_not_take_its_snapshot_holds_neither_memory_nor_a_connection() {
    let (app, tenant) = App::with_tenant().await;
    // 1.5 MB: more than the buffers of HTTP/2 and of the sockets, and as much as the service could read
    // far ahead of its client.
    const STATES: usize = 10_000;
    let insert = format!(
        "INSERT INTO fsm_entities
         SELECT '{}', repeat('x', 100), gen_random_uuid(), 'NEW', 1, now(), now()
           FROM generate_series(1, {STATES})",
        tenant.namespace
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&insert).await.unwrap();
    let request = WatchTransitionsRequest {
        with_snapshot: true,
        ..all(&tenant)
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(Some(65_535));
    let mut client = FsmServiceClient::new(endpoint.connect_lazy());
    let stream = Box::pin(client.watch_transitions(request));
    let mut watching = Watching::on(stream.await.unwrap().into_inner());
    let reading = "query LIKE '%pg_current_snapshot%' AND state <> 'idle'";
    let sessions = async |count| {
        eventually("the sessions that read", async || {
            (app.schema.sessions(reading).await == count).then_some(())
        })
        .await;
    };
    sessions(1).await;
    // The stall of the connection would end it, too, after 10 s.
    let released = timeout(Duration::from_secs(8), sessions(0)).await;
    released.expect("the query ends while the client does nothing");
    let status = loop {
        match watching.message().await {
            Ok(Message::Snapshot(_)) => {}
            Ok(other) => panic!("the rest of the snapshot was in memory: {other:?}"),
            Err(status) => break status,
        }
    };
    let info = status.get_details_error_info().unwrap();
    assert!(!info.metadata.contains_key("position"), "{info:?}");
    let Failure { reason, .. } = failure(Err::<(), _>(status));
    assert_eq!(reason, "CONSUMER_TOO_SLOW");
}
