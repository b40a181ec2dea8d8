//! The private PostgreSQL of `serve`.

mod damage;
mod frozen;
mod full_disk;

use std::{path::Path, time::Duration};

use bridgebook::proto::v1::{StartWorkflowRequest, workflow_service_client::WorkflowServiceClient};

use crate::support::{Server, bridgebook, eventually, new_id, send_signal, stderr, temp_dir};

async fn start_workflow(server: &Server) -> bool {
    let request = StartWorkflowRequest {
        namespace: "test".into(),
        correlation_id: new_id(),
        workflow_type: "test".into(),
        ..StartWorkflowRequest::default()
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(10));
    WorkflowServiceClient::new(server.channel())
        .start_workflow(request)
        .await
        .is_ok()
}

/// Returns the process id of the cluster's postmaster while it runs.
fn postmaster(dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(dir.join("cluster/postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.parse().ok()?;
    std::fs::exists(format!("/proc/{pid}"))
        .unwrap()
        .then_some(pid)
}

#[tokio::test]
async fn serve_starts_postgresql_and_sigterm_stops_both() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    for _ in 0..2 {
        let mut server = Server::spawn(&["--data-dir", data_dir]);
        server.serving().await;
        assert!(start_workflow(&server).await);
        assert!(postmaster(&dir.0).is_some());
        assert!(server.terminate().success());
        assert_eq!(postmaster(&dir.0), None);
    }
}

#[tokio::test]
async fn a_killed_service_leaves_no_postgresql_and_can_be_restarted() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    let mut server = Server::spawn(&["--data-dir", data_dir]);
    server.serving().await;
    server.kill();
    // The orphaned PostgreSQL may still be running.
    let mut next = Server::spawn(&["--data-dir", data_dir]);
    next.serving().await;
    assert!(start_workflow(&next).await);
    next.kill();
    eventually("PostgreSQL has ended", || async {
        postmaster(&dir.0).is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_postgresql_is_restarted() {
    let dir = temp_dir();
    let server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]).expect_errors();
    server.serving().await;
    let killed = postmaster(&dir.0).unwrap();
    assert_restarted_after_kill(&server, &dir.0, killed).await;
}

/// Kills the postmaster. Waits until another one runs and calls succeed.
async fn assert_restarted_after_kill(server: &Server, data_dir: &Path, killed: u32) {
    send_signal("KILL", killed);
    eventually("PostgreSQL was restarted", || async {
        postmaster(data_dir).filter(|pid| *pid != killed)
    })
    .await;
    eventually("calls succeed again", || async {
        start_workflow(server).await.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_same_directory_is_refused() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    let server = Server::spawn(&["--data-dir", data_dir]);
    server.serving().await;
    let output = bridgebook()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    assert!(start_workflow(&server).await);
}
