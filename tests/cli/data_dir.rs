//! Commands on the private PostgreSQL of a data directory.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{Server, bridgebook, eventually, new_id, stderr, temp_dir};

fn command(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = bridgebook();
    command.args(arguments).arg("--data-dir").arg(data_dir);
    command
}

fn run(arguments: &[&str], data_dir: &Path) -> Output {
    command(arguments, data_dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

const CREATE: [&str; 6] = ["token", "create", "--name", "ops", "--role", "admin"];

#[test]
fn a_mistyped_directory_is_an_error_and_creates_nothing() {
    let dir = temp_dir();
    let id = new_id();
    for arguments in [
        &CREATE[..],
        &["token", "list"],
        &["token", "revoke", &id],
        &["prune"],
        &["prune", "--dry-run"],
        &["migrate", "status"],
        &["migrate", "down"],
        &["migrate", "redo"],
    ] {
        let output = run(arguments, &dir.0);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains("no database found in"), "{text}");
        assert!(text.contains("migrate up"), "{text}");
        assert!(!dir.0.exists(), "{arguments:?}");
    }
}

#[test]
fn commands_at_once_take_turns_while_the_service_is_stopped() {
    let dir = temp_dir();
    stdout(&run(&["migrate", "up"], &dir.0));
    let commands = (0..4).map(|_| {
        let mut command = command(&CREATE, &dir.0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let commands: Vec<_> = commands.collect();
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(stdout(&output).starts_with("bb_"));
    }
    let listed = stdout(&run(&["token", "list"], &dir.0));
    assert_eq!(listed.lines().count(), 4, "{listed}");
}

/// This test holds the lock as a service does whose PostgreSQL does not start.
#[tokio::test]
async fn a_command_says_that_it_waits_for_the_postgresql_of_a_service() {
    let dir = temp_dir();
    stdout(&run(&["migrate", "up"], &dir.0));
    let lock = File::open(dir.0.join("lock")).unwrap();
    lock.lock().unwrap();
    let log = dir.0.join("output");
    let mut command = command(&["token", "list"], &dir.0);
    let mut waiting = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
    eventually("the command says so", async || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("waiting for the PostgreSQL").then_some(())
    })
    .await;
    drop(lock);
    waiting.wait().unwrap();
}

/// The service has its PostgreSQL by then, and begins to migrate.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_a_service_that_is_starting() {
    let dir = temp_dir();
    let server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]);
    let created = stdout(&run(&CREATE, &dir.0));
    assert!(created.starts_with("bb_"), "{created}");
    server.serving().await;
}
