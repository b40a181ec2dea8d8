//! Signals: SIGTERM begins a drain and ends it, SIGHUP reads files.

use std::path::Path;

use bridgebook::proto::v1::{ListWorkflowsRequest, workflow_service_client::WorkflowServiceClient};
use diesel_async::SimpleAsyncConnection;

use crate::support::{Pki, Schema, Server, eventually};

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
    let url = schema.url();
    let patient = ["--drain-timeout=86400", "--call-timeout=86400"];
    let mut server = Server::spawn(&["--database-url", &url, patient[0], patient[1]]);
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
    server.signal("TERM");
    logged(&server, "shutdown: draining").await;
    server.signal("INT");
    assert!(server.wait().success());
    assert!(call.await.unwrap().is_err());
    let log = server.log();
    assert!(log.contains("a second request ends the drain"), "{log}");
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
