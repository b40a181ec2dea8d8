//! Data directories in a state that a full disk, a power failure or an operator has left.

use std::{fs, future::ready};

use super::{names, postmaster, run, start_workflow, stopped};
use crate::support::{Server, bridgebook, eventually, send_signal, stderr, temp_dir};

#[test]
fn a_damaged_pid_file_does_not_prevent_a_start() {
    let dir = stopped();
    for damaged in ["", "\n", "garbage\n", "0\n", "-1\n"] {
        fs::write(dir.0.join("cluster/postmaster.pid"), damaged).unwrap();
        fs::write(dir.0.join("socket/.s.PGSQL.5432.lock"), damaged).unwrap();
        let output = run(&["token", "list"], &dir.0);
        assert!(output.status.success(), "{damaged:?} {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_postgresql_whose_pid_file_is_damaged_does_not_block_the_next_start() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    let mut server = Server::spawn(&["--data-dir", data_dir]);
    server.serving().await;
    fs::write(dir.0.join("cluster/postmaster.pid"), "").unwrap();
    server.kill();
    let next = Server::spawn(&["--data-dir", data_dir]);
    next.serving().await;
    assert!(start_workflow(&next).await);
}

#[test]
fn a_directory_that_is_a_cluster_of_others_is_left_alone() {
    let dir = temp_dir();
    fs::create_dir(&dir.0).unwrap();
    fs::write(dir.0.join("PG_VERSION"), "15\n").unwrap();
    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["migrate", "up"],
        &["token", "list"],
    ] {
        let output = run(command, &dir.0);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(text.contains("--database-url"), "{text}");
        assert_eq!(names(&dir.0), ["PG_VERSION"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_vanishes_ends_the_service_at_once() {
    let dir = temp_dir();
    let mut server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]).expect_errors();
    server.serving().await;
    fs::remove_dir_all(dir.0.join("cluster")).unwrap();
    let code = eventually("the service ends", || ready(server.try_wait())).await;
    assert_eq!(code.code(), Some(1));
    let log = server.log();
    assert!(log.contains("has vanished"), "{log}");
    // PostgreSQL has not noticed it by itself.
    assert!(!log.contains("PostgreSQL crashed"), "{log}");
    assert!(postmaster(&dir.0).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_vanishes_is_not_replaced_by_an_empty_one() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    let mut server = Server::spawn(&["--data-dir", data_dir]).expect_errors();
    server.serving().await;
    let running = postmaster(&dir.0).unwrap();
    let (cluster, elsewhere) = (dir.0.join("cluster"), dir.0.join("elsewhere"));
    fs::rename(&cluster, &elsewhere).unwrap();
    send_signal("KILL", running);
    assert_eq!(server.wait().code(), Some(1));
    let log = server.log();
    assert!(
        log.contains("has vanished") && log.contains("cluster.created"),
        "{log}"
    );
    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["migrate", "up"],
        &["token", "list"],
    ] {
        let output = run(command, &dir.0);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(
            stderr(&output).contains("has vanished"),
            "{}",
            stderr(&output)
        );
        assert!(!cluster.exists());
    }
    fs::rename(&elsewhere, &cluster).unwrap();
    let output = run(&["token", "list"], &dir.0);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_first_start_that_fails_leaves_no_unfinished_cluster() {
    let dir = temp_dir();
    // No program may write a file of more than 100 blocks, so initdb fails.
    let mut limited = std::process::Command::new("/bin/sh");
    limited.args(["-c", r#"ulimit -f 100; exec "$@""#, "sh"]);
    let failing = bridgebook();
    limited.arg(failing.get_program());
    limited.args(["migrate", "up", "--data-dir"]).arg(&dir.0);
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let has_unfinished = || names(&dir.0).iter().any(|it| it.starts_with("cluster"));
    assert!(!has_unfinished(), "{:?}", names(&dir.0));
}

/// A service that is killed during its first start leaves one.
#[test]
fn every_start_removes_unfinished_clusters() {
    let dir = stopped();
    let unfinished = dir.0.join("cluster.new-1");
    fs::create_dir_all(unfinished.join("base")).unwrap();
    let output = run(&["token", "list"], &dir.0);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!unfinished.exists());
}
