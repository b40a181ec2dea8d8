//! The log: one line for each call that failed or was slow.

use std::{
    fs::{self, File},
    path::Path,
};

use bridgebook::proto::v1::GetWorkflowRequest;
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::Request;

use crate::support::{
    App, Server, TempDir, Tenant, bridgebook, eventually, new_id, stderr, temp_dir, tenant_on,
};

/// A service that logs in JSON, and where.
async fn start(app: &App, arguments: &[&str]) -> (Server, TempDir, Tenant) {
    let dir = temp_dir();
    fs::create_dir_all(&dir.0).unwrap();
    let url = app.schema.url();
    let arguments = [&["--database-url", &url, "--log-format", "json"], arguments].concat();
    let log = File::create(dir.0.join("log")).unwrap();
    let server = Server::spawn_logging(&arguments, log);
    let tenant = tenant_on(server.serving().await);
    (server, dir, tenant)
}

/// The lines about calls, once there are so many.
async fn lines(dir: &Path, count: usize) -> Vec<Value> {
    eventually("they are logged", || async {
        let text = fs::read_to_string(dir.join("log")).unwrap();
        // The last line may still be being written.
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
async fn a_call_that_fails_is_one_line_with_all_that_is_known_of_it() {
    let app = App::start().await;
    let (_server, dir, tenant) = start(&app, &[]).await;
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

    let lines = lines(&dir.0, 1).await;
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
}

#[tokio::test]
async fn a_slow_call_is_a_line_with_the_correlation_id_of_its_workflow() {
    let app = App::start().await;
    let (_server, dir, tenant) = start(&app, &["--slow-call", "1"]).await;
    // Even a release build takes longer than that now and then; so may other calls.
    let rpc = "/bridgebook.v1.WorkflowService/StartWorkflow";
    let workflow = eventually("a call is slow", || async {
        tenant.start().await;
        let lines = lines(&dir.0, 0).await;
        lines.into_iter().find(|line| line["rpc"] == rpc)
    })
    .await;
    assert_eq!(workflow["level"], "WARN");
    assert_eq!(workflow["message"], "slow call");
    assert_eq!(workflow["code"], "Ok");
    assert!(workflow["correlation_id"].is_string());
}

/// That a connection breaks off in the middle of a request is no fault of ours.
#[tokio::test]
async fn a_caller_that_is_cut_off_went_away() {
    let app = App::start().await;
    let (server, dir, _tenant) = start(&app, &[]).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    // To close it is to reset it.
    stream.set_zero_linger().unwrap();
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://test/bridgebook.v1.WorkflowService/GetWorkflow")
        .header("content-type", "application/grpc")
        .body(());
    let (_answer, mut body) = sender.send_request(request.unwrap(), false).unwrap();
    // The beginning of a message of 255 bytes.
    let beginning = vec![0, 0, 0, 0, 255, 1];
    body.send_data(beginning.into(), false).unwrap();
    // What came before it has come, too.
    ping.ping(h2::Ping::opaque()).await.unwrap();
    connection.abort();
    let lines = lines(&dir.0, 1).await;
    assert_eq!(lines[0]["code"], "Cancelled");
    assert_eq!(lines[0]["level"], "INFO");
}

#[tokio::test]
async fn targets_have_levels_of_their_own() {
    let app = App::start().await;
    let (_server, dir, tenant) = start(&app, &["--log", "info,bridgebook::call=error"]).await;
    let unknown = GetWorkflowRequest::default();
    tenant
        .client
        .clone()
        .get_workflow(unknown)
        .await
        .unwrap_err();
    let text = fs::read_to_string(dir.0.join("log")).unwrap();
    assert!(
        text.contains("SERVING") && !text.contains("GetWorkflow"),
        "{text}"
    );
}

#[test]
fn a_filter_that_is_none_is_said_at_the_start() {
    let mut command = bridgebook();
    command.args(["serve", "--log", "info,bridgebook=loud"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("--log"), "{}", stderr(&output));
}
