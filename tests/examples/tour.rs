//! The tour of examples/tour.sh.

use std::{path::Path, process::Command};

use crate::support::{Node, example, rust_example, set_up, stderr, temp_dir};

/// The number of files that the tour stamps.
const FILES: usize = 40;

/// Returns a tour of a directory with the binaries under test.
fn tour(directory: &Path) -> Command {
    let mut command = Command::new(example("tour.sh"));
    command
        .arg(directory)
        .env("BRIDGEBOOK_BIN", env!("CARGO_BIN_EXE_bridgebook"))
        .env("REGISTRY_NODE_BIN", rust_example("registry_node"))
        .env("STATE_BOARD_BIN", rust_example("state_board"));
    // Two tests would make the environments at once.
    set_up("python");
    set_up("node");
    command
}

#[test]
fn the_tour_stamps_and_counts_every_file_once() {
    let directory = temp_dir();
    for file in 0..FILES {
        let parent = directory.0.join(format!("{}", file % 7));
        std::fs::create_dir_all(&parent).unwrap();
        std::fs::write(parent.join(format!("{file}")), format!("content {file}")).unwrap();
    }
    let output = tour(&directory.0).output().expect("the tour begins");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let steps = 3 * FILES;
    for expected in [
        format!("\"stamped\": {FILES}"),
        format!("workflows  {FILES} total, {FILES} completed, 0 failed"),
        "nodes      3 total, 3 healthy, 0 degraded, 0 unhealthy, 0 stale".to_owned(),
        format!("bridges    1 total, {FILES} workflows, {steps} items"),
        "  orchestrator orchestrator/demo/".to_owned(),
        "  reducer reducer/demo/".to_owned(),
        "  registry registry-1 ".to_owned(),
        format!("{:20}  {:24}  {FILES:>8}", "workflow", "COMPLETED"),
        "the service stopped".to_owned(),
    ] {
        assert!(text.contains(&expected), "no {expected} in {text}");
    }
}

#[tokio::test]
async fn a_stopped_tour_stops_its_processes() {
    let directory = temp_dir();
    std::fs::create_dir_all(&directory.0).unwrap();
    let mut tour = Node::spawn(tour(&directory.0));
    tour.prints("== the dashboard", 1).await;
    let printed = tour.printed();
    let address = printed
        .lines()
        .find_map(|line| line.strip_prefix("SERVING on "));
    let address: std::net::SocketAddr = address.unwrap().parse().unwrap();
    // Without a file nothing is counted, so the tour waits.
    assert_eq!(tour.terminate().await.code(), Some(143));
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "it still listens"
    );
}

#[test]
fn a_missing_directory_is_an_error() {
    let script = example("tour.sh");
    let output = Command::new(script).arg("/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere"));
}
