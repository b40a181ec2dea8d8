//! The bridge nodes of examples/ as processes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{cluster::TempDir, eventually, process::send_signal, temp_dir};

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the path of a file in examples/.
pub fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

/// Creates the environment of an example, once for all tests.
pub fn set_up(language: &str) {
    // Two setups at a time would disturb each other.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let script = example(language).join("setup.sh");
    let output = Command::new(script).output().expect("setup.sh runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Returns the binary of a Rust example, which cargo builds with the tests.
pub fn rust_example(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_bridgebook"));
    let program = binary.with_file_name("examples").join(name);
    assert!(
        program.is_file(),
        "{name} is missing: run cargo build --examples"
    );
    program
}

/// A running node. It is killed when the value is dropped.
pub struct Node {
    child: Child,
    output: TempDir,
}

impl Node {
    /// Starts a node, and keeps its output.
    pub fn spawn(mut command: Command) -> Node {
        let output = temp_dir();
        std::fs::create_dir_all(&output.0).unwrap();
        let file = File::create(output.0.join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .spawn()
            .expect("the node starts");
        Node { child, output }
    }

    /// Returns the output so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.output.0.join("log")).unwrap()
    }

    /// Waits until the output has a text this many times.
    pub async fn prints(&mut self, text: &str, times: usize) {
        eventually(text, || {
            let printed = self.printed();
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {printed}");
            let is_there = printed.matches(text).count() >= times;
            async move { is_there.then_some(()) }
        })
        .await;
    }

    /// Kills the node with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the node with SIGTERM. Returns when it has ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        send_signal("TERM", self.child.id());
        self.ends().await
    }

    /// Waits until the node has ended.
    pub async fn ends(&mut self) -> ExitStatus {
        eventually("the node ends", || {
            let ended = self.child.try_wait().unwrap();
            async move { ended }
        })
        .await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
