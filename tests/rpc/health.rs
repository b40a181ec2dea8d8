use std::collections::BTreeSet;

use bridgebook::{
    embedded::{Embedded, Settings},
    proto::Rpc,
};
use diesel_async::SimpleAsyncConnection;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::support::{
    App, Failure, Frozen, ReservedPort, Server, bridgebook, connect_database, contract, eventually,
    failure, own_cluster, temp_dir,
};

/// The whole server, and every service of the contract.
fn services() -> BTreeSet<String> {
    let methods = Rpc::ALL.iter().map(|rpc| contract::method(*rpc));
    let services = methods.filter_map(|method| Some(method.split_once('/')?.0.to_owned()));
    services.chain([String::new()]).collect()
}

async fn check(server: &Server, service: &str) -> Option<ServingStatus> {
    let mut client = HealthClient::new(server.channel());
    let request = HealthCheckRequest {
        service: service.into(),
    };
    client
        .check(request)
        .await
        .ok()
        .map(|answer| answer.into_inner().status())
}

async fn wait_for(server: &Server, wanted: ServingStatus) {
    for service in services() {
        eventually(&format!("{service:?} is {wanted:?}"), || async {
            (check(server, &service).await? == wanted).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn health_follows_the_database() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    cluster.stop().await.unwrap();
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    wait_for(&server, ServingStatus::NotServing).await;
    for _ in 0..2 {
        let cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
        wait_for(&server, ServingStatus::Serving).await;
        cluster.stop().await.unwrap();
        wait_for(&server, ServingStatus::NotServing).await;
    }
}

#[tokio::test]
async fn the_log_has_the_cause_of_not_serving() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    server.serving().await;
    let is_told = async |cause: &str| {
        eventually(cause, || async {
            server.log().contains(cause).then_some(())
        })
        .await;
    };
    let mut admin = connect_database(&url).await;
    let behind = "DELETE FROM __diesel_schema_migrations
        WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)";
    admin.batch_execute(behind).await.unwrap();
    is_told("the schema is behind").await;
    cluster.stop().await.unwrap();
    is_told("error connecting to server: ").await;
}

#[tokio::test]
async fn is_not_serving_while_the_database_is_frozen() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let server = Server::spawn(&["--database-url", &cluster.database_url(), "--migrate"]);
    server.serving().await;
    let frozen = Frozen::freeze(&cluster);
    wait_for(&server, ServingStatus::NotServing).await;
    drop(frozen);
    wait_for(&server, ServingStatus::Serving).await;
}

#[tokio::test]
async fn watch_reports_every_change() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let server = Server::spawn(&["--database-url", &cluster.database_url(), "--migrate"]);
    let channel = server.serving().await;
    let watch = HealthClient::new(channel)
        .watch(HealthCheckRequest::default())
        .await;
    let mut changes = watch.unwrap().into_inner();
    let mut next = async || -> Option<HealthCheckResponse> { changes.message().await.unwrap() };
    assert_eq!(next().await.unwrap().status(), ServingStatus::Serving);
    cluster.stop().await.unwrap();
    assert_eq!(next().await.unwrap().status(), ServingStatus::NotServing);
    let _cluster = own_cluster(&dir).await;
    assert_eq!(next().await.unwrap().status(), ServingStatus::Serving);
}

/// Health and reflection need no database.
#[tokio::test]
async fn health_and_reflection_serve_without_a_database() {
    let server = Server::spawn(&["--database-url", "postgres://nobody@127.0.0.1:1/nothing"]);
    wait_for(&server, ServingStatus::NotServing).await;
    for service in [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        let status = check(&server, service).await;
        assert_eq!(status, Some(ServingStatus::Serving), "{service}");
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let watch = HealthClient::new(server.channel()).watch(request).await;
        let first = watch.unwrap().into_inner().message().await.unwrap();
        assert_eq!(first.unwrap().status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn an_unknown_service_is_not_found() {
    let app = App::start().await;
    let request = HealthCheckRequest {
        service: "no\nbody".into(),
    };
    let answer = HealthClient::new(app.channel.clone()).check(request).await;
    let message = answer.as_ref().unwrap_err().message().to_owned();
    assert!(
        message.contains(r#"unknown service "no\u{a}body";"#),
        "{message}"
    );
    let expected = Failure::new(tonic::Code::NotFound, "SERVICE_UNKNOWN");
    assert_eq!(failure(answer), expected);
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_stays_open() {
    let app = App::start().await;
    let server = Server::spawn(&["--database-url", &app.schema.url()]);
    let channel = server.serving().await;
    let request = HealthCheckRequest {
        service: "nobody".into(),
    };
    let watch = HealthClient::new(channel).watch(request).await;
    let mut changes = watch.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    // The shutdown ends it, without an error.
    server.signal("TERM");
    assert_eq!(changes.message().await.unwrap(), None);
}

#[tokio::test]
async fn the_end_of_a_watch_is_no_failed_call() {
    let app = App::start().await;
    let server = Server::spawn(&["--database-url", &app.schema.url()]);
    let channel = server.serving().await;
    let watch = HealthClient::new(channel.clone())
        .watch(HealthCheckRequest::default())
        .await;
    let mut changes = watch.unwrap().into_inner();
    changes.message().await.unwrap().unwrap();
    drop(changes);
    let failing = HealthCheckRequest {
        service: "nobody".into(),
    };
    HealthClient::new(channel).check(failing).await.unwrap_err();
    // A later call of the same connection is in the log.
    eventually("the check is logged", async || {
        server.log().contains("Health/Check").then_some(())
    })
    .await;
    assert!(!server.log().contains("Health/Watch"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_exits_with_0_only_if_the_service_is_serving() {
    let app = App::start().await;
    let probe = |address: String| bridgebook().args(["health", &address]).output().unwrap();
    assert!(probe(app.address.to_string()).status.success());
    let closed = ReservedPort::new();
    assert_eq!(probe(closed.address.to_string()).status.code(), Some(1));
    let server = Server::spawn(&["--database-url", "postgres://nobody@127.0.0.1:1/nothing"]);
    wait_for(&server, ServingStatus::NotServing).await;
    assert_eq!(probe(server.address.to_string()).status.code(), Some(1));
}
