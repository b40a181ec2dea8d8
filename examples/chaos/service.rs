//! Runs the service as a child process and keeps the end of its log.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
};

use crate::{Error, Result};

/// The number of log lines that an unexpected exit shows.
const LAST_LINES: usize = 20;

/// How long a shutdown may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// A running service. Dropping the value kills it.
pub struct Service {
    process: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl Service {
    /// Starts this program as the service.
    pub fn start(address: SocketAddr, database_url: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            if name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"BRIDGEBOOK_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(["serve", "--migrate", "--listen", &address.to_string()])
            .args(["--database-url", database_url, "--log", "warn"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = process.stderr.take().ok_or("the service has no stderr")?;
        let lines = Arc::default();
        let reader = tokio::spawn(read(stderr, Arc::clone(&lines)));
        Ok(Service {
            process,
            lines,
            reader,
        })
    }

    /// Fails if the service has exited, because only [`Service::kill`] may end it.
    pub async fn require_running(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.unexpected_exit(status).await),
        }
    }

    /// Waits until the service exits unexpectedly and returns the error.
    pub async fn unexpected(&mut self) -> Error {
        match self.process.wait().await {
            Ok(status) => self.unexpected_exit(status).await,
            Err(error) => error.into(),
        }
    }

    async fn unexpected_exit(&mut self, status: ExitStatus) -> Error {
        // Waits for the reader, so that the last lines are complete.
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.reader).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let lines = lines.join("\n");
        format!("the service exited unexpectedly ({status}); last lines of its log:\n{lines}")
            .into()
    }

    /// Kills the service. Fails if it has exited before.
    pub async fn kill(&mut self) -> Result<()> {
        self.require_running().await?;
        Ok(self.process.kill().await?)
    }

    /// Sends SIGTERM and waits for the service to exit.
    pub async fn stop(mut self) -> Result<()> {
        self.require_running().await?;
        if let Some(pid) = self.process.id() {
            signal("TERM", pid).await?;
        }
        let status = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.process.wait()).await??;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the service failed to shut down: {status}").into()),
        }
    }
}

/// Keeps the last lines. Prints those that report an internal error of a call.
async fn read(stderr: ChildStderr, last: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The lines of streams are in the audit log.
        let is_of_call = line.contains("bridgebook::call") || line.contains("bridgebook::audit");
        if line.contains("ERROR") && is_of_call {
            eprintln!("{line}");
        }
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
}

/// Sends a signal to a process.
pub async fn signal(name: &str, pid: u32) -> Result<()> {
    let arguments = [format!("-{name}"), pid.to_string()];
    let status = Command::new("kill").args(arguments).status().await?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("kill -{name} {pid} failed: {status}").into()),
    }
}
