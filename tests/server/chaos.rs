//! What is acknowledged is stored, once, whatever dies when.

use std::process::Command;

use crate::support::rust_example;

/// Long enough for the service and PostgreSQL to be killed.
const SECONDS: &str = "10";

#[test]
fn nothing_is_lost_and_nothing_is_there_twice_whatever_is_killed_and_cut() {
    let output = Command::new(rust_example("chaos"))
        .args(["--seconds", SECONDS])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{complained}");
    for happened in ["service killed", "PostgreSQL killed", "lost | 0 |"] {
        assert!(printed.contains(happened), "no {happened}:\n{printed}");
    }
}
