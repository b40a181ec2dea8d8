//! Runs bridgebook as a separate process, as in production.

use std::{
    ffi::OsStr,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use bridgebook::client::probe::probe;
use tokio::process::{Child, Command};

use crate::Result;

/// The program that was built with this benchmark.
const THIS_BUILD: &str = env!("CARGO_BIN_EXE_bridgebook");

/// How long the service may take until it is SERVING.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval between health checks during startup: fine enough for the measurement, and
/// long enough not to slow the service down.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running `bridgebook serve`.
pub struct Service {
    process: Child,
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The time from the start of the process to SERVING.
    pub startup_time: Duration,
}

impl Service {
    /// Starts this build with the given arguments and waits until it is SERVING.
    pub async fn start(arguments: &[&OsStr]) -> Result<Self> {
        Self::start_program(THIS_BUILD.as_ref(), arguments).await
    }

    /// Starts any build of `bridgebook` with the given arguments and waits until it is
    /// SERVING. The address is added to the arguments.
    pub async fn start_program(program: &Path, arguments: &[&OsStr]) -> Result<Self> {
        // The port was free a moment ago, and nothing else here takes ports so fast.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let begun = Instant::now();
        let mut process = command(program)
            .args(["serve", "--listen", &address.to_string()])
            .args(arguments)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        while let Err(error) = probe(&address.to_string(), None).await {
            if let Some(status) = process.try_wait()? {
                return Err(format!("bridgebook exited before it was SERVING: {status}").into());
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(format!(
                    "bridgebook is not SERVING after {} s: {error}",
                    START_TIMEOUT.as_secs()
                )
                .into());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(Service {
            process,
            address,
            startup_time: begun.elapsed(),
        })
    }

    /// Returns the peak resident memory in KiB, or none on systems without /proc.
    #[allow(dead_code, reason = "not every benchmark needs it")]
    pub fn peak_memory(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// Returns the resident memory in KiB, or none on systems without /proc.
    #[allow(dead_code, reason = "not every benchmark needs it")]
    pub fn resident_memory(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> Option<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// Returns the CPU time used so far, see [`cpu_time`].
    #[allow(dead_code, reason = "not every benchmark needs it")]
    pub fn cpu_time(&self) -> Option<Duration> {
        cpu_time(self.process.id()?)
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub async fn stop(mut self) -> Result<()> {
        let id = self
            .process
            .id()
            .ok_or("bridgebook exited before it was stopped")?;
        Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await?;
        match self.process.wait().await? {
            status if status.success() => Ok(()),
            status => Err(format!("bridgebook failed to shut down: {status}").into()),
        }
    }
}

/// Returns the CPU time that a process has used so far, to a hundredth of a second, or none on
/// systems without /proc.
pub fn cpu_time(process_id: u32) -> Option<Duration> {
    /// The unit of /proc/PID/stat, which is the same on every Linux machine.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The name may contain spaces, so fields are counted after it: utime and stime.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = times.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    Some(TICK * ticks)
}

/// Applies all migrations to the database that `arguments` name.
pub async fn migrate(arguments: &[&OsStr]) -> Result<()> {
    let status = command(THIS_BUILD.as_ref())
        .arg("migrate")
        .args(arguments)
        .arg("up")
        .stdout(Stdio::null())
        .status()
        .await?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("bridgebook migrate up failed: {status}").into()),
    }
}

/// Creates a writer token for a namespace and returns its credential.
#[allow(dead_code, reason = "not every benchmark needs tokens")]
pub async fn create_token(arguments: &[&OsStr], namespace: &str) -> Result<String> {
    let output = command(THIS_BUILD.as_ref())
        .args(["token", "create", "--name", "benchmark", "--role", "writer"])
        .args(["--namespace", namespace])
        .args(arguments)
        .output()
        .await?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim().to_owned()),
        false => Err(format!("bridgebook token create failed: {}", output.status).into()),
    }
}

/// Prepares a command of `program` that ignores the environment's settings.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"BRIDGEBOOK_") {
            command.env_remove(name);
        }
    }
    // Anything below a warning would only clutter the benchmark's own output.
    command
        .env("BRIDGEBOOK_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
