//! The token of an open stream.

use std::time::Duration;

use bridgebook::{
    domain::role::Role,
    proto::v1::{
        WatchTransitionsRequest, WatchTransitionsResponse, watch_transitions_response::Message,
    },
};
use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status, Streaming};

use super::{all, commit_rows, delay_entities};
use crate::support::{App, Failure, Issued, Tenant, failure};

async fn watch(
    app: &App,
    token: &Issued,
    request: WatchTransitionsRequest,
) -> Streaming<WatchTransitionsResponse> {
    let client = token.client(&app.channel);
    let opened = Box::pin(async { client.fsm().watch_transitions(request).await });
    opened.await.unwrap().into_inner()
}

async fn guarded() -> (App, Tenant, Issued) {
    let app = App::guarded().await;
    let tenant = app.tenant();
    let token = app.issue(Role::Reader, &[&tenant.namespace]).await;
    (app, tenant, token)
}

/// Waits for the end. Returns the messages before it, too.
async fn end(
    mut stream: Streaming<WatchTransitionsResponse>,
) -> (Vec<WatchTransitionsResponse>, Status) {
    let mut messages = Vec::new();
    loop {
        match stream.message().await {
            Ok(message) => messages.push(message.expect("a status ends the stream")),
            Err(status) => return (messages, status),
        }
    }
}

fn assert_revoked(status: Status) {
    let Failure { code, reason, .. } = failure(Err::<(), _>(status));
    let expected = (Code::Unauthenticated, "CREDENTIAL_REVOKED");
    assert_eq!((code, reason.as_str()), expected);
}

#[tokio::test]
async fn a_revocation_ends_a_stream_within_5_seconds() {
    let (app, tenant, token) = guarded().await;
    let stream = watch(&app, &token, all(&tenant)).await;
    // With the token in the cache that was read last before a check.
    sleep_until(Instant::now() + Duration::from_millis(4100)).await;
    let revoked_at = Instant::now();
    app.revoke(&token).await;
    assert_revoked(end(stream).await.1);
    let after = revoked_at.elapsed();
    assert!(after < Duration::from_secs(5), "{after:?}");
}

#[tokio::test]
async fn a_revocation_ends_a_stream_within_its_snapshot() {
    let (app, tenant, token) = guarded().await;
    delay_entities(&app, &tenant, 8).await;
    let request = WatchTransitionsRequest {
        with_snapshot: true,
        ..all(&tenant)
    };
    let stream = watch(&app, &token, request).await;
    app.revoke(&token).await;
    let (messages, status) = end(stream).await;
    assert_revoked(status);
    for message in messages {
        let is_empty = |it: &Message| matches!(it, Message::Snapshot(it) if it.states.is_empty());
        assert!(
            message.message.as_ref().is_some_and(is_empty),
            "{message:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_whose_token_cannot_be_checked_goes_on_for_15_seconds() {
    let (mut app, tenant, token) = guarded().await;
    app.expect_errors();
    let mut stream = watch(&app, &token, all(&tenant)).await;
    stream.message().await.unwrap().expect("it is ready");
    let mut connection = app.schema.connect().await;
    let hide = "ALTER TABLE api_tokens RENAME TO hidden";
    connection.batch_execute(hide).await.unwrap();
    let hidden_at = Instant::now();
    let mut last_row_after = Duration::ZERO;
    let status = loop {
        match timeout(Duration::from_millis(500), stream.message()).await {
            Err(_) => commit_rows(&app, &tenant, 1).await,
            Ok(Ok(message)) => {
                let message = message.and_then(|it| it.message);
                if let Some(Message::Transitions(_)) = message {
                    last_row_after = hidden_at.elapsed();
                }
            }
            Ok(Err(status)) => break status,
        }
        assert!(
            hidden_at.elapsed() < Duration::from_secs(25),
            "it never ends"
        );
    };
    let Failure { code, reason, .. } = failure(Err::<(), _>(status));
    let expected = (Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert_eq!((code, reason.as_str()), expected);
    assert!(
        last_row_after > Duration::from_secs(9),
        "{last_row_after:?}"
    );
}
