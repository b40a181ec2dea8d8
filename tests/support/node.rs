//! The bridge nodes of examples/, as processes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{cluster::TempDir, eventually, process::send_signal, temp_dir};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of examples/.
pub fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

/// Makes an example's environment, once for all tests that want it.
pub fn set_up(language: &str) {
    // Two at a time would get into each other's way.
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

/// An example in Rust, which cargo builds with the tests.
pub fn rust_example(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_bridgebook"));
    let program = binary.with_file_name("examples").join(name);
    assert!(
        program.is_file(),
        "there is no {name}: cargo build --examples"
    );
    program
}

/// A node that runs. It is killed when the value is dropped.
pub struct Node {
    child: Child,
    output: TempDir,
}

impl Node {
    /// Starts a node, and keeps what it prints.
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

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.output.0.join("log")).unwrap()
    }

    /// Waits until it has printed this, so many times.
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

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        send_signal("TERM", self.child.id());
        self.ends().await
    }

    /// Waits until it has ended.
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
