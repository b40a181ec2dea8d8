//! Clients that connect and then are silent do not keep out clients that call.

use bridgebook::{
    config::Auth, domain::role::Role, proto::v1::ListWorkflowsRequest, util::open_files,
};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;

use crate::support::{ANY_WINDOW, App, Issued, Wire, connect, tenant_on};

const LIST: &str = "bridgebook.v1.WorkflowService/ListWorkflows";
const HEALTH_WATCH: &str = "grpc.health.v1.Health/Watch";

const LIMIT: usize = 200;
/// More than the limit and the reserve of 256 together.
const MUTE: usize = 1000;

fn listing() -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    }
}

async fn guarded() -> (App, Issued) {
    open_files::raise_limit();
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.connection.connections = LIMIT;
    });
    let app = app.await;
    let token = app.issue(Role::Reader, &["*"]).await;
    (app, token)
}

/// Makes calls over new connections. Each succeeds.
async fn assert_new_clients_get_in(app: &App, token: &Issued) {
    for _ in 0..20 {
        let channel = connect(app.address);
        let mut client = token.client(&channel).workflows();
        client.list_workflows(listing()).await.expect("it gets in");
    }
}

#[tokio::test]
async fn connections_without_a_preface_keep_out_nobody() {
    let (app, token) = guarded().await;
    let mute = join_all((0..MUTE).map(|_| TcpStream::connect(app.address))).await;
    assert!(mute.iter().all(Result::is_ok));
    assert_new_clients_get_in(&app, &token).await;
}

#[tokio::test]
async fn connections_with_a_preface_keep_out_nobody() {
    let (app, token) = guarded().await;
    let mut mute = Vec::new();
    for _ in 0..MUTE {
        mute.push(Wire::connect(app.address, ANY_WINDOW).await);
    }
    assert_new_clients_get_in(&app, &token).await;
}

#[tokio::test]
async fn connections_that_are_silent_after_a_rejected_call_keep_out_nobody() {
    let (app, token) = guarded().await;
    let mut mute = Vec::new();
    for _ in 0..MUTE {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let answer = wire.send(LIST, &listing()).await.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "16");
        mute.push(wire);
    }
    assert_new_clients_get_in(&app, &token).await;
}

#[tokio::test]
async fn connections_that_are_silent_after_a_call_make_room() {
    let app = App::start_with(|config| config.limits.connection.connections = 5).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let answer = wire.send(LIST, &listing()).await.await.unwrap();
        assert!(answer.headers().get("grpc-status").is_none(), "{answer:?}");
        silent.push(wire);
    }
    // The oldest is closed gracefully.
    let oldest = silent.swap_remove(0).ended;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), oldest).await;
    ended.expect("it is closed").unwrap().unwrap();
    tenant_on(app.channel.clone()).start().await;
}

#[tokio::test]
async fn connections_that_only_watch_the_health_after_a_call_make_room() {
    let app = App::start_with(|config| config.limits.connection.connections = 5).await;
    let mut watching = Vec::new();
    for _ in 0..20 {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let request = HealthCheckRequest::default();
        let watch = wire.send(HEALTH_WATCH, &request).await.await.unwrap();
        let answer = wire.send(LIST, &listing()).await.await.unwrap();
        assert!(answer.headers().get("grpc-status").is_none(), "{answer:?}");
        watching.push((wire, watch));
    }
    tenant_on(app.channel.clone()).start().await;
}
