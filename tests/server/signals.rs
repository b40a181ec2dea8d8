//! Signals: SIGTERM begins a drain and ends it, SIGHUP reads files.

use std::path::Path;

use bridgebook::proto::v1::{
    ListWorkflowsRequest, ListWorkflowsResponse, workflow_service_client::WorkflowServiceClient,
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

use crate::support::{Failure, Pki, Schema, Server, eventually, failure};

async fn logged(server: &Server, part: &str) {
    eventually(part, || async { server.log().contains(part).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_pause_before_a_drain() {
    let schema = Schema::create().await;
    let url = schema.url();
    let mut server = Server::spawn(&["--database-url", &url, "--drain-pause=86400"]);
    server.serving().await;
    server.signal("TERM");
    logged(&server, "shutdown: NOT_SERVING").await;
    assert!(server.terminate().success());
    let log = server.log();
    assert!(log.contains("a second request ends the drain"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_aborts_calls_in_progress() {
    let schema = Schema::create().await;
    let (mut server, call, _blocker) = with_stuck_call(&schema, "--drain-timeout=86400").await;
    server.signal("TERM");
    logged(&server, "shutdown: draining").await;
    server.signal("INT");
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("a second request ends the drain"), "{log}");
    assert_aborted(call, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_drain_timeout_aborts_calls_in_progress() {
    let schema = Schema::create().await;
    let (mut server, call, _blocker) = with_stuck_call(&schema, "--drain-timeout=1").await;
    assert!(server.terminate().success());
    let log = server.log();
    assert!(log.contains("the drain timed out"), "{log}");
    assert_aborted(call, &log).await;
}

type Call = JoinHandle<Result<Response<ListWorkflowsResponse>, Status>>;

/// The caller is told that a shutdown ended its call, and the operator how many there were.
async fn assert_aborted(call: Call, log: &str) {
    let ended = Failure::new(Code::Unavailable, "SHUTTING_DOWN");
    assert_eq!(failure(call.await.unwrap()), ended);
    assert!(log.contains("calls aborted calls=1"), "{log}");
}

/// Starts a service with a call that waits for a lock of the returned connection.
async fn with_stuck_call(schema: &Schema, drain: &str) -> (Server, Call, AsyncPgConnection) {
    let url = schema.url();
    let patient = ["--call-timeout=86400", drain, "--database-url", &url];
    let server = Server::spawn(&patient);
    let channel = server.serving().await;
    let mut blocker = schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let call = tokio::spawn(async move {
        let request = ListWorkflowsRequest {
            namespace: "test".into(),
            ..ListWorkflowsRequest::default()
        };
        WorkflowServiceClient::new(channel)
            .list_workflows(request)
            .await
    });
    eventually("the call waits for the lock", || async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
            AND relation = 'workflow_executions'::regclass";
        (schema.count(waiting).await > 0).then_some(())
    })
    .await;
    (server, call, blocker)
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_tls_files_and_does_not_end_the_service() {
    let schema = Schema::create().await;
    let url = schema.url();
    let pki = Pki::new();
    let flag = |name: &str, path: &Path| format!("--tls-{name}={}", path.display());
    let files = pki.config().files;
    let [certificate, key] = [
        flag("certificate", &files.certificate),
        flag("key", &files.key),
    ];
    let mut server = Server::spawn(&["--database-url", &url, &certificate, &key]);
    logged(&server, " SERVING").await;
    pki.renew();
    server.signal("HUP");
    logged(&server, "SIGHUP").await;
    logged(&server, "files reloaded").await;
    assert!(server.terminate().success());
}
