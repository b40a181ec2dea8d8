//! The service as a process, for tests that kill it or read its log.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{self, Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use bridgebook::embedded::Embedded;
use tokio::net::TcpSocket;
use tonic::transport::Channel;

use super::{
    PATIENCE,
    app::{connect, wait_until_serving},
    cluster::TempDir,
    temp_dir,
};

/// Returns a command of the binary, without the settings of the environment.
pub fn bridgebook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bridgebook"));
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        let is_ours = bytes.starts_with(b"BRIDGEBOOK_") || bytes.starts_with(b"PG");
        if name == "DATABASE_URL" || is_ours {
            command.env_remove(name);
        }
    }
    command
}

/// A running `bridgebook serve`. When the value is dropped, the process is killed, and the
/// test fails if it has panicked or logged an error.
pub struct Server {
    /// The address that it listens on.
    pub address: SocketAddr,
    child: Child,
    dir: TempDir,
    expects_errors: bool,
}

impl Server {
    /// Starts a service on an [`unused_address`]. Returns when it listens.
    pub fn spawn(arguments: &[&str]) -> Server {
        Server::spawn_program(bridgebook(), arguments)
    }

    /// Starts a service on the address of an earlier one.
    pub fn spawn_on(address: SocketAddr, arguments: &[&str]) -> Server {
        Server::spawn_command(bridgebook(), address, arguments)
    }

    /// Starts another version of the service.
    pub fn spawn_program(program: Command, arguments: &[&str]) -> Server {
        Server::spawn_command(program, unused_address(), arguments)
    }

    fn spawn_command(mut program: Command, address: SocketAddr, arguments: &[&str]) -> Server {
        let dir = temp_dir();
        fs::create_dir_all(&dir.0).unwrap();
        let child = program
            .args(["serve", "--listen", &address.to_string()])
            .args(arguments)
            .stderr(File::create(dir.0.join("log")).unwrap())
            .spawn()
            .expect("the service starts");
        let mut server = Server {
            address,
            child,
            dir,
            expects_errors: false,
        };
        server.address = server.wait_for_address("listening on ");
        server
    }

    /// Returns the address of the port for metrics and health checks.
    pub fn metrics_address(&mut self) -> SocketAddr {
        self.wait_for_address("metrics on ")
    }

    /// Waits for an address in the log. This blocks the test's thread, but the service
    /// listens before it needs anything from the test.
    #[expect(
        clippy::disallowed_methods,
        reason = "polls the log of another process, which this thread does not hold up"
    )]
    fn wait_for_address(&mut self, label: &str) -> SocketAddr {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(address) = log.lines().find_map(|line| address_after(line, label)) {
                return address;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the service ended: {log}");
            assert!(start.elapsed() < PATIENCE, "no {label:?} in the log: {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns what the service has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap()
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.0.join("log")
    }

    /// Lets the test pass although the service logs errors, because the test causes them.
    pub fn expect_errors(mut self) -> Server {
        self.expects_errors = true;
        self
    }

    /// Returns the resident memory of the process in KiB.
    pub fn resident_kib(&self) -> usize {
        let pid = self.child.id().to_string();
        let output = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output();
        let output = output.expect("ps runs").stdout;
        String::from_utf8_lossy(&output)
            .trim()
            .parse()
            .expect("the service runs")
    }

    /// Returns the most resident memory that the process has had, in KiB.
    pub fn peak_kib(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(status).expect("the service runs");
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("VmHWM").parse().unwrap()
    }

    /// Waits until the service is SERVING. Returns a channel to it.
    pub async fn serving(&self) -> Channel {
        let channel = self.channel();
        wait_until_serving(&channel).await;
        channel
    }

    pub fn channel(&self) -> Channel {
        connect(self.address)
    }

    /// Kills the service with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the service ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Returns how the service ended, or `None` while it runs.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal to the service.
    pub fn signal(&self, name: &str) {
        send_signal(name, self.child.id());
    }

    /// Stops the service with SIGTERM. Returns when it has ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            return;
        }
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
        let mut lines = log.lines();
        let is_error = |line: &str| line.contains(" ERROR ") || line.contains("\"ERROR\"");
        let error = lines.find(|line| is_error(line));
        assert!(self.expects_errors || error.is_none(), "{log}");
    }
}

/// Returns the address behind a label in a line of a log.
fn address_after(line: &str, label: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(label)?;
    let end = rest.find(|c: char| !matches!(c, '0'..='9' | '.' | ':'));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// Returns an address for a service. It stays free while the service is stopped: the port is returned
/// once, and the system does not choose it, neither for port 0 nor for a client
/// (net.ipv4.ip_local_port_range).
pub fn unused_address() -> SocketAddr {
    const FIRST: u16 = 61_000;
    const COUNT: u16 = 4_500;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // So that two runs of the tests at once seldom try the same ports.
    let offset = process::id() % u32::from(COUNT);
    for _ in 0..COUNT {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((offset + next) % u32::from(COUNT)).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free")
}

/// A port that is bound, but on which no process listens. A program that sets SO_REUSEPORT
/// can listen on it; without one, connections to it are refused.
pub struct ReservedPort {
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl ReservedPort {
    pub fn new() -> ReservedPort {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        ReservedPort {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}

/// Sends a signal to a process. Fails if the process has ended.
pub fn send_signal(name: &str, pid: u32) {
    assert!(try_signal(name, pid), "process {pid} has ended");
}

/// Sends a signal to a process. Returns false if the process has ended.
pub(super) fn try_signal(name: &str, pid: u32) -> bool {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    status.expect("kill runs").success()
}

/// Returns the standard error of a process.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cluster whose processes are stopped until the value is dropped.
pub struct Frozen(Vec<u32>);

impl Frozen {
    /// Stops all processes of a cluster.
    pub fn freeze(cluster: &Embedded) -> Self {
        Frozen::freeze_server(cluster.pid())
    }

    /// Stops a postmaster and its children.
    pub fn freeze_server(postmaster: u32) -> Self {
        // First the postmaster, so that it starts no other process.
        send_signal("STOP", postmaster);
        let children = Command::new("pgrep")
            .args(["-P", &postmaster.to_string()])
            .output();
        let children = String::from_utf8(children.expect("pgrep runs").stdout).unwrap();
        let children = children.lines().map(|pid| pid.parse().unwrap());
        // A child may end between the listing and the signal. The postmaster is stopped and
        // does not reap it, so its id is not reused.
        let children = children.filter(|pid| try_signal("STOP", *pid));
        let mut pids = vec![postmaster];
        pids.extend(children);
        Frozen(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            try_signal("CONT", *pid);
        }
    }
}
