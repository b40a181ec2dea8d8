//! How a stream ends.

use std::{collections::HashSet, time::Duration};

use bridgebook::{
    domain::role::Role,
    proto::v1::{WatchTransitionsRequest, watch_transitions_response::Message},
};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::{Watching, after, all, client, commit_rows, from_start, ids, make_moves};
use crate::support::{App, Failure, Server, eventually, failure, tenant_on};

#[tokio::test]
async fn a_deadline_ends_a_stream_after_a_last_bookmark() {
    let (_app, tenant) = App::with_tenant().await;
    let mut request = Request::new(all(&tenant));
    // tonic's client would end the call itself.
    request
        .metadata_mut()
        .insert("grpc-timeout", "2S".parse().unwrap());
    let stream = client(&tenant).watch_transitions(request).await.unwrap();
    let watching = Watching::on(stream.into_inner());
    let last = make_moves(&tenant, 1).await.pop().unwrap();
    let (messages, status) = watching.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let position = &status.get_details_error_info().unwrap().metadata["position"];
    assert_eq!(*position, last.position);
    match messages.last() {
        Some(Message::Bookmark(bookmark)) => assert_eq!(bookmark.position, *position),
        other => panic!("no last bookmark: {other:?}"),
    }
}

#[tokio::test]
async fn a_page_that_takes_long_delays_neither_bookmarks_nor_the_deadline() {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    make_moves(&tenant, 1).await;
    let mut page = tap.hold("bytes_through");
    let mut request = Request::new(from_start(&tenant));
    request
        .metadata_mut()
        .insert("grpc-timeout", "6S".parse().unwrap());
    let stream = Box::pin(async { client(&tenant).watch_transitions(request).await });
    let watching = Watching::on(stream.await.unwrap().into_inner());
    page.reached().await;
    let (messages, status) = watching.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(messages.len() >= 2, "{messages:?}");
    for message in &messages[1..] {
        assert!(matches!(message, Message::Bookmark(_)), "{message:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_commit_has_no_last_bookmark_and_goes_on_after_its_last_row() {
    const ROWS: usize = 30_000;
    let (app, tenant) = App::with_tenant().await;
    commit_rows(&app, &tenant, ROWS).await;
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut request = Request::new(from_start(&tenant));
    request
        .metadata_mut()
        .insert("grpc-timeout", "1S".parse().unwrap());
    let stream = client(&tenant).watch_transitions(request).await.unwrap();
    // A client that takes nothing meanwhile. The commit does not fit into the window of its stream.
    sleep_until(deadline).await;
    let watching = Watching::on(stream.into_inner());
    let (messages, status) = Box::pin(watching.end()).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let mut rows = Vec::new();
    for message in messages {
        match message {
            Message::Transitions(it) => rows.extend(it.transitions),
            Message::Ready(_) => {}
            other => panic!("within a commit: {other:?}"),
        }
    }
    assert!(rows.len() < ROWS, "it did not end within the commit");
    let position = &status.get_details_error_info().unwrap().metadata["position"];
    assert_eq!(*position, rows.last().unwrap().position);
    let mut resumed = Watching::open(&tenant, after(&tenant, position))
        .await
        .unwrap();
    rows.extend(resumed.transitions(ROWS - rows.len()).await);
    let distinct: HashSet<_> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(distinct.len(), ROWS);
}

#[tokio::test]
async fn an_old_connection_ends_its_streams_and_others_go_on_after_them() {
    let app = App::start_with(|config| {
        config.limits.connection.max_age = Some(Duration::from_secs(1));
        config.limits.connection.check_interval = Duration::from_millis(100);
    });
    let app = app.await;
    let tenant = app.tenant();
    let watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let row = make_moves(&tenant, 1).await.remove(0);
    let (messages, status) = watching.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "WATCH_ENDED");
    assert_eq!(info.metadata["position"], row.position);
    assert!(matches!(messages.last(), Some(Message::Bookmark(it)) if it.position == row.position));
    let next = make_moves(&tenant, 1).await;
    // The next connections are old soon, too, and transactions of other tests delay the row.
    let rows = loop {
        let resumed = Watching::open(&tenant, after(&tenant, &row.position)).await;
        let (messages, _) = resumed.unwrap().end().await;
        let rows = messages.into_iter().find_map(|message| match message {
            Message::Transitions(it) => Some(it.transitions),
            _ => None,
        });
        if let Some(rows) = rows {
            break rows;
        }
    };
    assert_eq!(ids(&rows), ids(&next));
}

#[tokio::test]
async fn the_end_of_each_stream_is_in_the_audit_log() {
    let app = App::start().await;
    let server = Server::spawn(&["--database-url", &app.schema.url()]);
    let tenant = tenant_on(server.serving().await);
    let lines = || {
        let log = server.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("bridgebook::audit"));
        lines
            .filter(|line| line.contains(&tenant.namespace))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    for count in 1..=2 {
        drop(Watching::open(&tenant, all(&tenant)).await.unwrap());
        let ended = eventually("the line of the stream", async || {
            let lines = lines();
            (lines.len() == count).then_some(lines)
        });
        let line = ended.await.pop().unwrap();
        for part in [
            "stream ended",
            "WatchTransitions",
            "duration_ms=",
            "code=Cancelled",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}

#[tokio::test]
async fn too_many_streams_are_refused_and_ended_ones_make_room() {
    let app = App::start_with(|config| config.limits.watches = 5).await;
    let tenant = app.tenant();
    // One owner has four fifths.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(Watching::open(&tenant, all(&tenant)).await.unwrap());
    }
    let refused = failure(Watching::open(&tenant, all(&tenant)).await.map(drop));
    let Failure { code, reason, .. } = refused;
    assert_eq!(
        (code, reason.as_str()),
        (Code::ResourceExhausted, "OVERLOADED")
    );
    drop(open);
    eventually("a slot is free", async || {
        Watching::open(&tenant, all(&tenant)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_token_watches_what_it_covers_until_it_is_revoked() {
    let app = App::guarded().await;
    let reader = app.issue(Role::Reader, &["team-*", "own"]).await;
    let watch = async |namespace: &str| {
        let request = WatchTransitionsRequest {
            namespace: namespace.to_owned(),
            ..WatchTransitionsRequest::default()
        };
        let watched = reader
            .client(&app.channel)
            .fsm()
            .watch_transitions(request)
            .await;
        watched.map(tonic::Response::into_inner)
    };
    for namespace in ["*", "t*", "team*", "own*", "other", "team"] {
        let Failure { code, reason, .. } = failure(watch(namespace).await.map(drop));
        let expected = (Code::PermissionDenied, "NAMESPACE_DENIED");
        assert_eq!((code, reason.as_str()), expected, "{namespace}");
    }
    for namespace in ["team-*", "team-a*", "team-a", "own", "bridgebook.registry"] {
        let mut stream = watch(namespace).await.unwrap();
        stream.message().await.unwrap().expect("it is ready");
    }
    let mut stream = watch("team-*").await.unwrap();
    app.revoke(&reader).await;
    let status = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    let Failure { code, reason, .. } = failure(Err::<(), _>(status));
    let expected = (Code::Unauthenticated, "CREDENTIAL_REVOKED");
    assert_eq!((code, reason.as_str()), expected);
}
