use std::time::{Duration, Instant};

use bridgebook::{
    client::Client,
    config::Auth,
    domain::role::Role,
    proto::v1::{ListTokensRequest, ListWorkflowsRequest, RevokeTokenRequest},
};
use chrono::{TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{App, Failure, Issued, eventually, failure};

fn unauthenticated(reason: &str) -> Failure {
    Failure::new(Code::Unauthenticated, reason)
}

fn listing() -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    }
}

/// Calls with this authorization header.
async fn call_with(app: &App, header: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(listing());
    if let Some(header) = header {
        let header = header.parse().unwrap();
        request.metadata_mut().insert("authorization", header);
    }
    let client = Client::new(app.channel.clone());
    client.workflows().list_workflows(request).await.map(drop)
}

async fn call(app: &App, token: &Issued) -> Result<(), Status> {
    call_with(app, Some(&format!("Bearer {}", token.credential))).await
}

#[tokio::test]
async fn the_authorization_scheme_is_case_insensitive() {
    let app = App::guarded().await;
    let token = app.issue(Role::Reader, &["team-*"]).await.credential;
    for header in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER  {token} "),
    ] {
        call_with(&app, Some(&header)).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_or_bad_credential_is_refused_with_its_reason() {
    let app = App::guarded().await;
    let token = app.issue(Role::Reader, &["*"]).await.credential;
    let other = app.issue(Role::Reader, &["*"]).await.credential;
    // The id of one token with the secret of another.
    let (id, _) = token.rsplit_once('_').unwrap();
    let (_, secret) = other.rsplit_once('_').unwrap();
    let crossed = format!("Bearer {id}_{secret}");
    let nobody = format!("Bearer bb_{}_{secret}", "0".repeat(32));
    let cut = format!("Bearer {}", &token[..token.len() - 1]);
    let basic = format!("Basic {token}");
    for (header, reason) in [
        (None, "CREDENTIAL_MISSING"),
        (Some(""), "CREDENTIAL_MALFORMED"),
        (Some("Bearer"), "CREDENTIAL_MALFORMED"),
        (Some(token.as_str()), "CREDENTIAL_MALFORMED"),
        (Some(&basic), "CREDENTIAL_MALFORMED"),
        (Some(&cut), "CREDENTIAL_MALFORMED"),
        (Some(&crossed), "CREDENTIAL_UNKNOWN"),
        (Some(&nobody), "CREDENTIAL_UNKNOWN"),
    ] {
        let failed = failure(call_with(&app, header).await);
        assert_eq!(failed, unauthenticated(reason), "{header:?}");
    }
}

#[tokio::test]
async fn two_credentials_are_refused_even_if_one_is_valid() {
    let app = App::guarded().await;
    let token = app.issue(Role::Reader, &["*"]).await.credential;
    let mut request = Request::new(listing());
    for _ in 0..2 {
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().append("authorization", header);
    }
    let client = Client::new(app.channel.clone());
    let failed = client.workflows().list_workflows(request).await;
    assert_eq!(failure(failed), unauthenticated("CREDENTIAL_MALFORMED"));
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let app = App::guarded().await;
    let soon = Utc::now() + TimeDelta::seconds(2);
    let token = app.issue_until(Role::Reader, &["*"], Some(soon)).await;
    call(&app, &token).await.unwrap();
    let failed = eventually("it expires", async || call(&app, &token).await.err()).await;
    assert!(Utc::now() >= soon);
    let expected = unauthenticated("CREDENTIAL_EXPIRED");
    assert_eq!(failure::<()>(Err(failed)), expected);
}

/// The maximum time in which a revoked token may still be accepted.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_revocation_reaches_every_replica_within_seconds() {
    let app = App::guarded().await;
    let replica = App::start_on(app.schema.clone(), |config| config.auth = Auth::Tokens).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let token = app.issue(Role::Reader, &["*"]).await;
    for service in [&app, &replica] {
        call(service, &token).await.unwrap();
    }
    let revocation = RevokeTokenRequest {
        id: token.id.clone(),
    };
    let mut operator = admin.client(&app.channel).admin();
    operator.revoke_token(revocation).await.unwrap();
    let revoked = Instant::now();
    for service in [&app, &replica] {
        // Constant calls must not keep the token in the cache.
        let failed = eventually("it ends", async || call(service, &token).await.err()).await;
        let expected = unauthenticated("CREDENTIAL_REVOKED");
        assert_eq!(failure::<()>(Err(failed)), expected);
    }
    assert!(
        revoked.elapsed() < REVOKED_WITHIN,
        "{:?}",
        revoked.elapsed()
    );
}

/// Returns a value that changes with every write to the token's row.
const VERSIONS: &str = "SELECT xmin::text::bigint FROM api_tokens WHERE role = 'READER'";

#[tokio::test]
async fn a_token_shows_when_it_was_last_used() {
    let app = App::guarded().await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let token = app.issue(Role::Reader, &["*"]).await;
    call(&app, &token).await.unwrap();
    eventually("it is written", async || {
        let mut operator = admin.client(&app.channel).admin();
        let listed = operator.list_tokens(ListTokensRequest::default()).await;
        let mut tokens = listed.unwrap().into_inner().tokens.into_iter();
        tokens.find(|it| it.id == token.id).unwrap().last_used_at
    })
    .await;
    // The time is not written on every call.
    let before = app.schema.count(VERSIONS).await;
    for _ in 0..100 {
        call(&app, &token).await.unwrap();
    }
    assert_eq!(app.schema.count(VERSIONS).await, before);
}

#[tokio::test]
async fn health_needs_no_credential() {
    let app = App::guarded().await;
    let mut health = HealthClient::new(app.channel.clone());
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn an_unauthenticated_caller_does_not_learn_which_methods_exist() {
    let app = App::guarded().await;
    let method = "bridgebook.v1.WorkflowService/NoSuchMethod";
    let failed = crate::support::raw_call(&app.channel, method, Vec::new()).await;
    assert_eq!(failure(failed), unauthenticated("CREDENTIAL_MISSING"));
}

#[tokio::test]
async fn without_authentication_a_credential_is_ignored() {
    let app = App::start().await;
    let token = app.issue(Role::Reader, &["elsewhere"]).await;
    call(&app, &token).await.unwrap();
}

#[tokio::test]
async fn a_token_with_a_role_that_only_a_newer_version_knows_permits_nothing() {
    let app = App::guarded().await;
    let token = app.issue(Role::Admin, &["*"]).await;
    let newer = format!(
        "ALTER TABLE api_tokens DROP CONSTRAINT api_tokens_role_check;
         UPDATE api_tokens SET role = 'AUDITOR' WHERE id = '{}'",
        token.id
    );
    let mut database = app.schema.connect().await;
    database.batch_execute(&newer).await.unwrap();
    let refused = Failure::new(Code::PermissionDenied, "ROLE_TOO_LOW");
    assert_eq!(failure(call(&app, &token).await), refused);
    let other = app.issue(Role::Reader, &["team-a"]).await;
    call(&app, &other).await.unwrap();
}
