//! Writes while processes are killed: every acknowledged write is stored exactly once, and every
//! reader of the journal gets each row exactly once.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::rust_example;

/// Long enough for kills of both the service and PostgreSQL.
const SECONDS: &str = "10";

#[test]
fn no_write_and_no_row_of_a_reader_is_lost_or_doubled_under_chaos() {
    let output = Command::new(rust_example("chaos"))
        .args(["--seconds", SECONDS])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{complained}");
    for happened in [
        "service killed",
        "PostgreSQL killed",
        "consumer killed",
        "lost | 0 |",
        "missed by a reader | 0 |",
    ] {
        assert!(printed.contains(happened), "no {happened}:\n{printed}");
    }
}

#[tokio::test]
async fn a_run_fails_at_once_when_the_service_exits_unexpectedly() {
    let run = Command::new(rust_example("chaos"))
        .args(["--seconds", "600", "--callers", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let parent = run.id().to_string();
    let begun = Instant::now();
    // Repeats until the service has started.
    while begun.elapsed() < Duration::from_secs(120) {
        let killed = Command::new("pkill")
            .args(["-KILL", "-P", &parent, "-f", "chaos serve"])
            .status()
            .unwrap();
        if killed.success() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let output = run.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint.contains("the service exited unexpectedly"),
        "{complaint}"
    );
}
