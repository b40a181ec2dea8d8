//! A PostgreSQL whose processes are frozen: they act on no signal but SIGKILL and SIGCONT.

use super::{assert_restarted_after_kill, postmaster, start_workflow};
use crate::support::{Frozen, Server, temp_dir};

#[tokio::test]
async fn a_frozen_orphan_does_not_block_the_next_start() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    let mut server = Server::spawn(&["--data-dir", data_dir]);
    server.serving().await;
    let _frozen = Frozen::freeze_server(postmaster(&dir.0).unwrap());
    server.kill();
    let next = Server::spawn(&["--data-dir", data_dir]);
    next.serving().await;
    assert!(
        next.log().contains("PostgreSQL is frozen"),
        "{}",
        next.log()
    );
    assert!(start_workflow(&next).await);
}

#[tokio::test]
async fn sigterm_stops_the_service_although_postgresql_is_frozen() {
    let dir = temp_dir();
    let mut server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]);
    server.serving().await;
    let _frozen = Frozen::freeze_server(postmaster(&dir.0).unwrap());
    assert!(server.terminate().success(), "{}", server.log());
    assert!(server.log().contains("PostgreSQL is frozen"));
    assert_eq!(postmaster(&dir.0), None);
}

/// The frozen processes keep the shared memory, which a new server refuses to join.
#[tokio::test]
async fn frozen_processes_of_a_killed_postmaster_are_killed() {
    let dir = temp_dir();
    let server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]).expect_errors();
    server.serving().await;
    let killed = postmaster(&dir.0).unwrap();
    let _frozen = Frozen::freeze_server(killed);
    assert_restarted_after_kill(&server, &dir.0, killed).await;
    assert!(
        server.log().contains("killing processes"),
        "{}",
        server.log()
    );
}
