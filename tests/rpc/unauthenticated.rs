//! Clients that are not authenticated cannot lock out those that are.

use std::time::Duration;

use bridgebook::{
    config::Auth,
    domain::role::Role,
    proto::v1::{ListWorkflowsRequest, StartWorkflowRequest},
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    ANY_WINDOW, App, Failure, Tenant, Wire, connect, document, eventually, failure, tenant_on,
};

const LIST: &str = "bridgebook.v1.WorkflowService/ListWorkflows";
/// More connections than a test's limit and the reserve of 256 together.
const FLOOD: usize = 300;

const HEALTH_CHECK: &str = "grpc.health.v1.Health/Check";

fn listing(tenant: &Tenant) -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        ..ListWorkflowsRequest::default()
    }
}

/// Returns whether the service answers a health check on a connection.
async fn is_answered(wire: &Wire) -> bool {
    let request = HealthCheckRequest::default();
    let answer = wire.send(HEALTH_CHECK, &request).await.await;
    answer.is_ok_and(|it| it.status().is_success())
}

async fn list(tenant: &Tenant) -> Result<(), Status> {
    let answer = tenant.client.clone().list_workflows(listing(tenant)).await;
    answer.map(drop)
}

#[tokio::test]
async fn silent_connections_do_not_lock_out_clients() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.connection.connections = 3;
    })
    .await;
    let token = app.issue(Role::Writer, &["*"]).await;
    let known = token.client(&app.channel);
    let request = ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    };
    known
        .workflows()
        .list_workflows(request.clone())
        .await
        .unwrap();
    // More than the limit and the connections over the limit together.
    let silent = join_all((0..FLOOD).map(|_| TcpStream::connect(app.address))).await;
    assert!(silent.iter().all(Result::is_ok));
    eventually("a new client can call", async || {
        let channel = connect(app.address);
        let new = token.client(&channel);
        new.workflows().list_workflows(request.clone()).await.ok()
    })
    .await;
    // The authenticated connection is still open.
    known.workflows().list_workflows(request).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_connections_does_not_evict_a_load_balancer() {
    let app = App::start_with(|config| config.limits.connection.connections = 3).await;
    tenant_on(app.channel.clone()).start().await;
    let balancer = Wire::connect(app.address, ANY_WINDOW).await;
    assert!(is_answered(&balancer).await);
    let oldest = Wire::connect(app.address, ANY_WINDOW).await;
    let silent = join_all((0..FLOOD).map(|_| TcpStream::connect(app.address))).await;
    assert!(silent.iter().all(Result::is_ok));
    // The flood has been accepted, because the oldest of the others is evicted.
    let ended = tokio::time::timeout(Duration::from_secs(60), oldest.ended).await;
    let _ = ended.expect("it is evicted").unwrap();
    assert!(is_answered(&balancer).await);
    assert!(!balancer.ended.is_finished());
}

#[tokio::test]
async fn a_flood_of_health_checks_does_not_lock_out_clients() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.connection.connections = 1;
    })
    .await;
    let token = app.issue(Role::Writer, &["*"]).await;
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        assert!(is_answered(&wire).await);
        flood.push(wire);
    }
    let request = ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    };
    let client = token.client(&connect(app.address));
    client.workflows().list_workflows(request).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_preface_is_disconnected() {
    let app = App::start_with(|config| {
        config.limits.connection.handshake_timeout = Duration::from_millis(200);
    })
    .await;
    let silent = TcpStream::connect(app.address).await.unwrap();
    eventually("it is closed", async || {
        silent.readable().await.unwrap();
        matches!(silent.try_read(&mut [0; 64]), Ok(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_soon() {
    let app = App::start_with(|config| {
        config.limits.connection.connections = 1;
        config.limits.connection.unauthenticated_timeout = Duration::from_millis(200);
    })
    .await;
    let tenant = tenant_on(app.channel.clone());
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let busy = tokio::spawn({
        let tenant = tenant.clone();
        async move { list(&tenant).await }
    });
    let waiting = "SELECT count(*) FROM pg_locks
                    WHERE NOT granted AND relation = 'workflow_executions'::regclass";
    eventually("the only place is busy", async || {
        (app.schema.count(waiting).await > 0).then_some(())
    })
    .await;
    let balancer = Wire::connect(app.address, ANY_WINDOW).await;
    let rejected = Wire::connect(app.address, ANY_WINDOW).await;
    let silent = Wire::connect(app.address, ANY_WINDOW).await;
    for wire in [&balancer, &rejected] {
        assert!(is_answered(wire).await);
    }
    let answer = rejected.send(LIST, &listing(&tenant)).await.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "8", "{answer:?}");
    for wire in [rejected, silent] {
        let ended = tokio::time::timeout(Duration::from_secs(60), wire.ended).await;
        ended.expect("it ends").unwrap().unwrap();
    }
    assert!(!balancer.ended.is_finished(), "it only checks health");
    blocker.batch_execute("COMMIT").await.unwrap();
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn unread_responses_count_until_their_connection_is_closed() {
    let app = App::start_with(|config| config.limits.request_bytes = Some(300_000)).await;
    let tenant = app.tenant();
    let large = StartWorkflowRequest {
        metadata: document(json!({"a": "x".repeat(150_000)})),
        ..tenant.new_workflow()
    };
    tenant.start_as(large).await;
    let wire = Wire::connect(app.address, 0).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(wire.send(LIST, &listing(&tenant)).await);
    }
    let refused = eventually("they take all there is", async || list(&tenant).await.err());
    let overloaded = Failure::new(Code::ResourceExhausted, "OVERLOADED");
    assert_eq!(failure::<()>(Err(refused.await)), overloaded);
    wire.ended.abort();
    eventually("there is room again", async || list(&tenant).await.ok()).await;
}

#[tokio::test]
async fn a_request_takes_a_permit_only_when_it_is_complete() {
    let app = App::start_with(|config| config.limits.requests = Some(1)).await;
    let tenant = app.tenant();
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(wire.begin(wire.head(LIST)).await);
    }
    list(&tenant).await.unwrap();
    tenant.start().await;
}

#[tokio::test]
async fn health_watches_are_limited_and_checks_are_not() {
    let app = App::start().await;
    let mut health = HealthClient::new(app.channel.clone());
    let mut watches = Vec::new();
    let refused = loop {
        match health.watch(HealthCheckRequest::default()).await {
            Ok(watch) => watches.push(watch),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(!watches.is_empty());
    health.check(HealthCheckRequest::default()).await.unwrap();
    watches.pop();
    eventually("there is room for another", async || {
        let request = HealthCheckRequest::default();
        health.clone().watch(request).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_request_that_a_browser_can_forge_is_refused() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    for (method, content_type, status) in [
        ("GET", "application/grpc", 405),
        ("POST", "text/plain", 415),
        ("POST", "application/grpc", 200),
    ] {
        let mut head = wire.head(LIST);
        *head.method_mut() = method.parse().unwrap();
        let content_type = content_type.parse().unwrap();
        head.headers_mut().insert("content-type", content_type);
        let mut ready = wire.sender.clone().ready().await.unwrap();
        let (answer, _) = ready.send_request(head, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{method}");
    }
}
