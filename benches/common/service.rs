//! bridgebook, as the process that it is in production.

use std::{
    ffi::OsStr,
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};

use bridgebook::client::probe::probe;
use tokio::process::{Child, Command};

use crate::Result;

/// How long it may take until it serves before we give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked whether it serves: more often than matters to a person,
/// and seldom enough not to slow it down.
const POLL: Duration = Duration::from_millis(5);

/// A running `bridgebook serve`.
pub struct Service {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// How long it took from the start of the process to SERVING.
    pub took: Duration,
}

impl Service {
    /// Starts it with these arguments beside the address, and waits until it serves.
    pub async fn start(arguments: &[&OsStr]) -> Result<Self> {
        // Free a moment ago: nobody else here takes ports at this rate.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let begun = Instant::now();
        let mut process = bridgebook()
            .args(["serve", "--listen", &address.to_string()])
            .args(arguments)
            .spawn()?;
        while let Err(error) = probe(&address.to_string(), None).await {
            if let Some(status) = process.try_wait()? {
                return Err(format!("bridgebook ended before it served: {status}").into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("bridgebook does not serve: {error}").into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Service {
            process,
            address,
            took: begun.elapsed(),
        })
    }

    /// The most memory it ever had, in KiB; none where there is no /proc.
    pub fn peak_memory(&self) -> Option<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id()?)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// How much of the processor it has had, to a hundredth of a second; none where
    /// there is no /proc.
    #[allow(dead_code, reason = "not every benchmark asks")]
    pub fn processor_time(&self) -> Option<Duration> {
        /// What Linux counts in, on every machine.
        const TICK: Duration = Duration::from_millis(10);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()?)).ok()?;
        // After the name, which may have spaces in it; then utime and stime.
        let (_, fields) = stat.rsplit_once(')')?;
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u32 = times.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
        Some(TICK * ticks)
    }

    /// Stops it as a supervisor would, and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.process.id().ok_or("bridgebook ended by itself")?;
        Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await?;
        match self.process.wait().await? {
            status if status.success() => Ok(()),
            status => Err(format!("bridgebook did not stop well: {status}").into()),
        }
    }
}

/// Brings a schema up to date; `arguments` say which.
pub async fn migrate(arguments: &[&OsStr]) -> Result<()> {
    let status = bridgebook()
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

/// Creates a token that may write in a namespace; answers its credential.
#[allow(dead_code, reason = "not every benchmark asks for tokens")]
pub async fn create_token(arguments: &[&OsStr], namespace: &str) -> Result<String> {
    let output = bridgebook()
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

/// A command of the program that was built with this benchmark, with no settings
/// but those of its command line.
fn bridgebook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bridgebook"));
    for (name, _) in std::env::vars_os() {
        if name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"BRIDGEBOOK_") {
            command.env_remove(name);
        }
    }
    // Only what is wrong belongs between our own lines.
    command
        .env("BRIDGEBOOK_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
