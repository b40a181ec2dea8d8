//! The running server, and the watchdog that stops it if this process is killed.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::Account;
use super::error::EmbeddedError;
use super::find::Installation;
use super::log::ServerLog;
use super::postmaster;
use super::processes::{self, POLL, STOP};

/// Waits for the end of its input, which comes when this process ends in any way. Then stops the
/// server if the pid file still names it.
///
/// It cannot signal another process with the server's id. The id stays taken until this process
/// waits for its child, and then the watchdog is killed. The loop is for a server that has not
/// written the file yet.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
while read -r _; do :; done
for _ in 1 2 3 4 5; do
    kill -0 "$1" || exit 0
    if read -r pid <"$2" && [ "$pid" = "$1" ]; then
        kill -s INT "$1"
        exit
    fi
    sleep 1
done
"#;

/// What a server needs to start.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cluster: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) port: u16,
    pub(super) log: PathBuf,
    pub(super) installation: Installation,
    pub(super) account: Account,
    pub(super) durable: bool,
    pub(super) parameters: Vec<(String, String)>,
}

/// A running server. Dropping it closes the input of the watchdog, which stops the server.
#[derive(Debug)]
pub(super) struct Server {
    /// Not tokio's type, because tests wait for it in another runtime than they start it in.
    postgres: Child,
    watchdog: Child,
    log: Arc<ServerLog>,
}

impl Server {
    /// Starts the server and waits until it accepts connections.
    pub(super) async fn start(plan: &Plan) -> Result<Self, EmbeddedError> {
        /// Backends of a killed postmaster exit within milliseconds, or at the end of a running
        /// statement. On Linux they are killed before.
        const LEFTOVERS_LIMIT: Duration = Duration::from_secs(60);
        /// Each attempt costs a process and some lines in the log.
        const PAUSE: Duration = Duration::from_millis(250);
        let deadline = Instant::now() + LEFTOVERS_LIMIT;
        let mut is_waiting = false;
        loop {
            let mut server = Self::launch(plan)?;
            match server.ready(&plan.cluster).await {
                Ok(()) => return Ok(server),
                Err(EmbeddedError::Ended { tail, .. })
                    if tail.contains("shared memory block") && Instant::now() < deadline =>
                {
                    if !is_waiting {
                        is_waiting = true;
                        tracing::info!("waiting for the last backends of a killed PostgreSQL");
                    }
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the process id of the postmaster.
    pub(super) fn pid(&self) -> u32 {
        self.postgres.id()
    }

    /// Stops the server, see [`STOP`].
    pub(super) async fn stop(mut self, plan: &Plan) -> Result<(), EmbeddedError> {
        // The server has crashed before: report why.
        if let Some(status) = self.ended()? {
            return Err(self.ended_error(status));
        }
        let pid = self.pid();
        let mut status = None;
        let has_ended = || {
            status = self.ended()?;
            Ok(status.is_some())
        };
        let signal = processes::stop(pid, &plan.cluster, &plan.account, &STOP, has_ended).await?;
        self.kill_watchdog();
        let [(fast, _), ..] = STOP;
        match status {
            // A fast shutdown that fails has a reason, for example a full disk.
            Some(status) if signal == fast && !status.success() => Err(self.ended_error(status)),
            _ => Ok(()),
        }
    }

    fn launch(plan: &Plan) -> Result<Self, EmbeddedError> {
        let log = ServerLog::open(&plan.log, &plan.account)?;
        let program = plan.installation.bin_dir.join("postgres");
        let mut command = plan.account.command(&program);
        command.arg("-D").arg(&plan.cluster).args(arguments(plan));
        command.stdout(log.writer()?).stderr(log.writer()?);
        // Ctrl-C must reach only this process, which stops the server after the drain.
        command.process_group(0);
        let mut postgres = command
            .spawn()
            .map_err(EmbeddedError::io("run", &program))?;
        let watchdog = watch(postgres.id(), plan).inspect_err(|_| {
            // Without a watchdog the server could outlive this process. It has no data to lose yet.
            let _ = postgres.kill().and_then(|()| postgres.wait());
        })?;
        Ok(Self {
            postgres,
            watchdog,
            log,
        })
    }

    /// Waits until the server accepts connections, without a timeout while it runs. Replaying a long
    /// write-ahead log takes minutes, and a restart would begin again.
    async fn ready(&mut self, cluster: &Path) -> Result<(), EmbeddedError> {
        /// The interval of log lines about a slow start.
        const LOG_INTERVAL: Duration = Duration::from_secs(10);
        let mut log_at = Instant::now() + LOG_INTERVAL;
        while postmaster::state(cluster) != Some((self.pid(), true)) {
            if let Some(status) = self.ended()? {
                return Err(self.ended_error(status));
            }
            if Instant::now() >= log_at {
                let log = self.log.path().display();
                tracing::info!(%log, "PostgreSQL is still starting");
                log_at += LOG_INTERVAL;
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Returns how the server ended, or `None` while it runs.
    pub(super) fn crash(&mut self) -> Result<Option<EmbeddedError>, EmbeddedError> {
        Ok(self.ended()?.map(|status| self.ended_error(status)))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, EmbeddedError> {
        self.postgres
            .try_wait()
            .map_err(EmbeddedError::io("wait for", Path::new("postgres")))
    }

    /// Returns the error of a server that ended by itself.
    fn ended_error(&mut self, status: ExitStatus) -> EmbeddedError {
        self.kill_watchdog();
        EmbeddedError::Ended {
            status,
            log: self.log.path().to_owned(),
            tail: self.log.tail(),
        }
    }

    /// Kills the watchdog after the server has ended, because another process may get the server's
    /// id now.
    fn kill_watchdog(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

/// Starts the watchdog. Its input is a pipe that only this process holds open.
fn watch(pid: u32, plan: &Plan) -> Result<Child, EmbeddedError> {
    let shell = Path::new("/bin/sh");
    let mut command = plan.account.command(shell);
    command
        .args(["-c", WATCHDOG, "bridgebook-watchdog", &pid.to_string()])
        .arg(plan.cluster.join("postmaster.pid"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().map_err(EmbeddedError::io("run", shell))
}

/// Returns the parameters of the server. Those below come last and so override the settings. All
/// others keep PostgreSQL's defaults and can be changed with `ALTER SYSTEM`.
fn arguments(plan: &Plan) -> Vec<OsString> {
    let safe = if plan.durable { "on" } else { "off" };
    let ours = [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("port", &plan.port.to_string()),
        ("fsync", safe),
        ("synchronous_commit", safe),
        ("full_page_writes", safe),
        // Messages go to the log file through standard error.
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("log_line_prefix", "%m [%p] "),
        // `Server::start` reads them.
        ("lc_messages", "C"),
        // The statements of the service are long, and their timeouts are not faults of theirs.
        ("log_min_error_statement", "panic"),
        // Statements are short, and hardened systems forbid generated code.
        ("jit", "off"),
        // Shown by ps.
        ("cluster_name", "bridgebook"),
    ];
    let given = plan
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut arguments: Vec<OsString> = given
        .chain(ours)
        .flat_map(|(name, value)| {
            [
                OsString::from("-c"),
                OsString::from(format!("{name}={value}")),
            ]
        })
        .collect();
    arguments.push("-c".into());
    arguments.push(socket_directories(&plan.socket_dir));
    arguments
}

/// Quotes the directory, because the parameter is a list that commas and spaces would split.
fn socket_directories(directory: &Path) -> OsString {
    let mut argument = b"unix_socket_directories=\"".to_vec();
    for &byte in directory.as_os_str().as_bytes() {
        argument.extend(if byte == b'"' {
            b"\"\"".as_slice()
        } else {
            std::slice::from_ref(&byte)
        });
    }
    argument.push(b'"');
    OsString::from_vec(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_directory_is_quoted() {
        let argument = |path| socket_directories(Path::new(path)).into_string();
        assert_eq!(
            argument("/a, b"),
            Ok(r#"unix_socket_directories="/a, b""#.to_owned())
        );
        assert_eq!(
            argument(r#"/a"b"#),
            Ok(r#"unix_socket_directories="/a""b""#.to_owned())
        );
    }
}
