//! The retries of the Python and Node.js nodes: which failures they retry, and how long they wait.

use std::{process::Command, sync::Arc};

use bridgebook::{client::retry::retry_after, domain::error::Error};
use tonic::Status;

use crate::support::{example, set_up};

/// Failures, and the least pause in milliseconds before a retry; `None` if it cannot help. The
/// service tells each caller up to a quarter more.
fn failures() -> [(Status, Option<u64>); 4] {
    let cause = || Arc::new(std::io::Error::other("a cause"));
    [
        (Error::QueueFull.into(), Some(50)),
        (Error::DatabaseUnavailable(cause()).into(), Some(1000)),
        (Error::DeadlineExceeded.into(), Some(0)),
        (Error::StatementTimeout(cause()).into(), None),
    ]
}

/// Runs a program. Returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn in_python(status: &Status) -> String {
    let script = "import sys
from bridge_node import retry_after, status_pb2
least = retry_after(status_pb2.Status.FromString(bytes.fromhex(sys.argv[1])))
print(least if least is None else round(least * 1000))";
    let digits = status.details().iter().map(|byte| format!("{byte:02x}"));
    let example = example("python");
    let mut python = Command::new(example.join(".venv/bin/python"));
    run(python
        .current_dir(example)
        .args(["-c", script, &digits.collect::<String>()]))
}

fn in_node(status: &Status) -> String {
    let script = "import { retryAfter } from './client.js';
const [code, pushback] = process.argv.slice(1);
const metadata = { get: () => (pushback === undefined ? [] : [pushback]) };
console.log(retryAfter({ code: Number(code), metadata }));";
    let code = i32::from(status.code()).to_string();
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    let pushback = pushback.map(|value| value.to_str().unwrap());
    let mut node = Command::new("node");
    node.current_dir(example("node"))
        .args(["--input-type=module", "-e", script, "--", &code]);
    run(node.args(pushback))
}

#[test]
fn all_clients_agree_on_what_they_retry() {
    set_up("python");
    set_up("node");
    for (status, expected) in failures() {
        let in_rust = retry_after(&status).map(|pause| pause.as_millis());
        let is_expected = match (in_rust, expected.map(u128::from)) {
            (Some(pause), Some(least)) => (least..=least * 5 / 4 + 1).contains(&pause),
            (pause, least) => pause == least,
        };
        assert!(is_expected, "{status:?}: {in_rust:?}");
        let shown = |none: &str| in_rust.map_or(none.to_owned(), |pause| pause.to_string());
        assert_eq!(in_python(&status), shown("None"), "{status:?}");
        assert_eq!(in_node(&status), shown("null"), "{status:?}");
    }
}
