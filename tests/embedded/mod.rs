//! The private PostgreSQL of `serve`.

mod backup;
mod damage;
mod frozen;
mod full_disk;
mod move_out;
mod replacement;
mod restore;
mod upgrade;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use bridgebook::proto::v1::{StartWorkflowRequest, workflow_service_client::WorkflowServiceClient};

use crate::support::{
    Server, TempDir, bridgebook, eventually, new_id, send_signal, stderr, temp_dir,
};

/// Returns a command on a data directory.
fn command(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = bridgebook();
    command.args(arguments).arg("--data-dir").arg(data_dir);
    command
}

fn run(arguments: &[&str], data_dir: &Path) -> Output {
    command(arguments, data_dir).output().unwrap()
}

/// Runs a command that succeeds. Returns its standard output.
fn succeed(arguments: &[&str], data_dir: &Path) -> String {
    let output = run(arguments, data_dir);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that fails. Returns its error.
fn fail(arguments: &[&str], data_dir: &Path) -> String {
    let output = run(arguments, data_dir);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let error = stderr(&output);
    let line = error.lines().find(|line| line.starts_with("bridgebook: "));
    line.unwrap_or_else(|| panic!("no error: {error}"))
        .to_owned()
}

/// Returns a data directory with a database that no process runs.
fn stopped() -> TempDir {
    let dir = temp_dir();
    succeed(&["migrate", "up"], &dir.0);
    dir
}

/// Stores a token, a row that `token list` shows.
fn store_token(data_dir: &Path) {
    succeed(
        &["token", "create", "--name", "kept", "--role", "admin"],
        data_dir,
    );
}

fn has_token(data_dir: &Path) -> bool {
    succeed(&["token", "list"], data_dir).contains("kept")
}

/// Lists the names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Returns a path in a new directory, which others may enter.
fn file(dir: &TempDir, name: &str) -> PathBuf {
    fs::create_dir_all(&dir.0).unwrap();
    dir.0.join(name)
}

/// Runs a command until the server of its new cluster is there, and kills it. Waits for the end of that
/// server.
async fn kill_halfway(mut command: Command, data_dir: &Path) {
    let mut running = command.spawn().unwrap();
    let pid_file = eventually("a server of a new cluster", || async {
        let new = names(data_dir)
            .into_iter()
            .find(|it| it.starts_with("cluster.new-"))?;
        let pid_file = data_dir.join(new).join("postmaster.pid");
        pid_file.exists().then_some(pid_file)
    })
    .await;
    running.kill().unwrap();
    running.wait().unwrap();
    eventually("the server has ended", || async {
        (!pid_file.exists()).then_some(())
    })
    .await;
}

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
