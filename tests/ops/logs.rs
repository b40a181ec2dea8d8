//! The call log: one line for each call that failed or was slow.

use bridgebook::proto::v1::{
    GetWorkflowRequest, WatchTransitionsRequest, fsm_service_client::FsmServiceClient,
};
use diesel_async::SimpleAsyncConnection;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::support::{
    App, Server, Tenant, bridgebook, eventually, failure, new_id, send_part, stderr, tenant_on,
};

/// Starts a service that logs in JSON.
async fn start(app: &App, arguments: &[&str]) -> (Server, Tenant) {
    let url = app.schema.url();
    let arguments = [&["--database-url", &url, "--log-format", "json"], arguments].concat();
    let server = Server::spawn(&arguments);
    let tenant = tenant_on(server.serving().await);
    (server, tenant)
}

/// Returns the lines of the call log, once there are `count` of them.
async fn lines(server: &Server, count: usize) -> Vec<Value> {
    eventually("the calls are logged", || async {
        let text = server.log();
        // The last line may be incomplete.
        let whole = text.rsplit_once('\n')?.0;
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let lines = lines.filter(|line: &Value| line["target"] == "bridgebook::call");
        let lines: Vec<_> = lines.collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn a_failed_call_is_one_line_with_its_ids_and_cause() {
    let app = App::start().await;
    let (server, tenant) = start(&app, &[]).await;
    tenant.start().await;
    let mut request = Request::new(GetWorkflowRequest {
        namespace: tenant.namespace.clone(),
        key: Some(bridgebook::proto::v1::get_workflow_request::Key::Id(
            new_id(),
        )),
        include_stamps: false,
    });
    let correlation_id = "order 7";
    let header = correlation_id.parse().unwrap();
    request.metadata_mut().insert("x-correlation-id", header);
    let refused = tenant.client.clone().get_workflow(request).await;
    let status = refused.unwrap_err();
    let request_id = status.metadata().get("x-request-id").unwrap();

    let lines = lines(&server, 1).await;
    let [line] = lines.as_slice() else {
        panic!("not one line: {lines:#?}")
    };
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "call failed");
    assert_eq!(line["rpc"], "/bridgebook.v1.WorkflowService/GetWorkflow");
    assert_eq!(line["namespace"], tenant.namespace);
    assert_eq!(line["code"], "NotFound");
    assert_eq!(line["reason"], "WORKFLOW_NOT_FOUND");
    assert_eq!(line["request_id"], request_id.to_str().unwrap());
    assert_eq!(line["correlation_id"], correlation_id);
    assert!(line["duration_ms"].is_u64());
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn a_stream_that_fails_is_logged_with_its_id_and_cause() {
    let app = App::start().await;
    let (server, tenant) = start(&app, &[]).await;
    let server = server.expect_errors();
    let rename = "ALTER TABLE fsm_entities RENAME TO renamed";
    let mut database = app.schema.connect().await;
    database.batch_execute(rename).await.unwrap();
    let request = WatchTransitionsRequest {
        namespace: tenant.namespace.clone(),
        with_snapshot: true,
        ..WatchTransitionsRequest::default()
    };
    let mut fsm = FsmServiceClient::new(tenant.channel.clone());
    let response = fsm.watch_transitions(request).await.unwrap();
    let request_id = response.metadata().get("x-request-id").unwrap().clone();
    let status = response.into_inner().message().await.unwrap_err();
    assert_eq!(failure::<()>(Err(status.clone())).code, Code::Internal);
    let details = status.get_details_error_info().unwrap();
    assert_eq!(details.metadata["request_id"], request_id);
    let line = eventually("the stream is logged", || async {
        let text = server.log();
        let whole = text.rsplit_once('\n')?.0;
        let mut lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        lines.find(|line: &Value| line["message"] == "stream ended")
    })
    .await;
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["request_id"], details.metadata["request_id"]);
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("fsm_entities"), "{cause}");
}

#[tokio::test]
async fn a_slow_call_is_logged_with_the_correlation_id_of_its_workflow() {
    let app = App::start().await;
    let (server, tenant) = start(&app, &["--slow-call", "1"]).await;
    // Even a release build exceeds 1 ms at times. Other calls may be slow too.
    let rpc = "/bridgebook.v1.WorkflowService/StartWorkflow";
    let workflow = eventually("a call is slow", || async {
        tenant.start().await;
        let lines = lines(&server, 0).await;
        lines.into_iter().find(|line| line["rpc"] == rpc)
    })
    .await;
    assert_eq!(workflow["level"], "WARN");
    assert_eq!(workflow["message"], "slow call");
    assert_eq!(workflow["code"], "Ok");
    assert!(workflow["correlation_id"].is_string());
}

#[tokio::test]
async fn a_connection_that_breaks_during_a_request_is_logged_as_cancelled() {
    let app = App::start().await;
    let (server, _tenant) = start(&app, &[]).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    // So that closing resets the connection.
    stream.set_zero_linger().unwrap();
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://test/bridgebook.v1.WorkflowService/GetWorkflow")
        .header("content-type", "application/grpc")
        .body(());
    let (_answer, mut body) = sender.send_request(request.unwrap(), false).unwrap();
    // The first byte of a message of 255 bytes.
    let beginning = vec![0, 0, 0, 0, 255, 1];
    send_part(&mut body, beginning, false);
    // The ping's answer shows that the message has arrived.
    ping.ping(h2::Ping::opaque()).await.unwrap();
    connection.abort();
    let lines = lines(&server, 1).await;
    assert_eq!(lines[0]["code"], "Cancelled");
    assert_eq!(lines[0]["level"], "INFO");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_levels_can_differ_by_target() {
    let app = App::start().await;
    let (mut server, tenant) = start(&app, &["--log", "info,bridgebook::call=error"]).await;
    let unknown = GetWorkflowRequest::default();
    tenant
        .client
        .clone()
        .get_workflow(unknown)
        .await
        .unwrap_err();
    assert_eq!(server.terminate().code(), Some(0));
    let text = server.log();
    assert!(
        text.contains("SERVING") && !text.contains("GetWorkflow"),
        "{text}"
    );
}

#[test]
fn invalid_settings_of_logs_and_traces_are_errors_at_startup() {
    for (flag, value) in [
        ("--log", "info,bridgebook=loud"),
        // Not a level, and the name of a target alone says nothing of the others.
        ("--log", "warning"),
        ("--log", "info,verbose"),
        ("--otlp-endpoint", "collector:4317"),
        ("--otlp-endpoint", "collector"),
    ] {
        let mut command = bridgebook();
        let output = command.args(["serve", flag, value]).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{flag} {value}");
        assert!(stderr(&output).contains(flag), "{}", stderr(&output));
    }
}
