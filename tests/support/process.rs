//! The service as a process of its own, for tests that kill it.

use std::{
    fs::File,
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
};

use bridgebook::embedded::Embedded;
use tonic::transport::Channel;

use super::app::{connect, wait_until_serving};

/// A command of the binary, without the settings of whoever runs the tests.
pub fn bridgebook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bridgebook"));
    for (name, _) in std::env::vars_os() {
        if name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"BRIDGEBOOK_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running `bridgebook serve`. It is killed when the value is dropped.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a service with these arguments, on a port that was free just now.
    pub fn spawn(arguments: &[&str]) -> Server {
        Server::spawn_on(free_address(), arguments)
    }

    pub fn spawn_on(address: SocketAddr, arguments: &[&str]) -> Server {
        Server::spawn_telling(address, arguments, Stdio::null())
    }

    /// Starts a service that writes its log to a file.
    pub fn spawn_logging(arguments: &[&str], log: File) -> Server {
        Server::spawn_telling(free_address(), arguments, log.into())
    }

    /// Starts another version of the service.
    pub fn spawn_program(program: Command, arguments: &[&str]) -> Server {
        Server::spawn_command(program, free_address(), arguments, Stdio::null())
    }

    fn spawn_telling(address: SocketAddr, arguments: &[&str], stderr: Stdio) -> Server {
        Server::spawn_command(bridgebook(), address, arguments, stderr)
    }

    fn spawn_command(
        mut program: Command,
        address: SocketAddr,
        arguments: &[&str],
        stderr: Stdio,
    ) -> Server {
        let child = program
            .args(["serve", "--listen", &address.to_string()])
            .args(arguments)
            .stderr(stderr)
            .spawn()
            .expect("the service starts");
        Server { address, child }
    }

    /// How much memory it has, in KiB.
    pub fn resident_kib(&self) -> usize {
        let pid = self.child.id().to_string();
        let output = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output();
        let output = output.expect("ps runs").stdout;
        String::from_utf8_lossy(&output)
            .trim()
            .parse()
            .expect("the service runs")
    }

    /// A channel to it, once it is SERVING.
    pub async fn serving(&self) -> Channel {
        let channel = self.channel();
        wait_until_serving(&channel).await;
        channel
    }

    pub fn channel(&self) -> Channel {
        connect(self.address)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        send_signal(name, self.child.id());
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that was free just now.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Sends a signal to a process.
pub fn send_signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// What a process printed to its standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cluster that does nothing, until this is dropped.
pub struct Frozen(Vec<u32>);

impl Frozen {
    /// Stops all processes of a cluster in their tracks.
    pub fn freeze(cluster: &Embedded) -> Self {
        // First the one that could start others.
        send_signal("STOP", cluster.pid());
        let children = Command::new("pgrep")
            .args(["-P", &cluster.pid().to_string()])
            .output();
        let children = String::from_utf8(children.expect("pgrep runs").stdout).unwrap();
        let mut pids = vec![cluster.pid()];
        for pid in children.lines().map(|pid| pid.parse().unwrap()) {
            send_signal("STOP", pid);
            pids.push(pid);
        }
        Frozen(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            send_signal("CONT", *pid);
        }
    }
}
