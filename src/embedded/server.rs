//! The running server, and the watchdog that outlives us to stop it.

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
use super::postmaster::{self, FAST_LIMIT, IMMEDIATE_LIMIT, POLL};
use super::socket::PORT;

/// Waits for the end of its input, which comes when our process ends, however it ends; then
/// stops the server, if the pid file still names it. It cannot hit another process that got the
/// server's number: the number is taken until we wait for our child, and whenever we have, we
/// dismiss the watchdog.
/// The loop is for a server that dies with us before it wrote the file.
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

/// What a server is started from.
pub(super) struct Plan<'a> {
    pub(super) cluster: &'a Path,
    pub(super) socket_dir: &'a Path,
    pub(super) log: PathBuf,
    pub(super) installation: &'a Installation,
    pub(super) account: &'a Account,
    pub(super) durable: bool,
    pub(super) parameters: &'a [(String, String)],
}

/// A server that runs. Dropping it closes the watchdog's input and so stops the server.
#[derive(Debug)]
pub(super) struct Server {
    /// Not tokio's: it may be waited for in another runtime than it was started in, as tests do.
    postgres: Child,
    watchdog: Child,
    log: Arc<ServerLog>,
}

impl Server {
    /// Starts the server and waits until it accepts connections.
    pub(super) async fn start(plan: &Plan<'_>) -> Result<Self, EmbeddedError> {
        /// Sessions notice within milliseconds that their postmaster was killed, unless they
        /// are computing: then at the end of their statement.
        const LEFTOVERS_LIMIT: Duration = Duration::from_secs(60);
        /// Each attempt costs a process and some lines of the log.
        const PAUSE: Duration = Duration::from_millis(250);
        let deadline = Instant::now() + LEFTOVERS_LIMIT;
        loop {
            let mut server = Self::launch(plan)?;
            match server.ready(plan.cluster).await {
                Ok(()) => return Ok(server),
                Err(EmbeddedError::Ended { tail, .. })
                    if tail.contains("shared memory block") && Instant::now() < deadline =>
                {
                    tracing::info!("waiting for the last sessions of a PostgreSQL that was killed");
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

    /// Stops the server: fast, and if it does not end, immediately.
    pub(super) async fn stop(mut self, account: &Account) -> Result<(), EmbeddedError> {
        // Ended long ago: whoever stops it should learn why.
        if let Some(status) = self.ended()? {
            return Err(self.bury(status));
        }
        let pid = self.pid();
        for (name, limit) in [("INT", FAST_LIMIT), ("QUIT", IMMEDIATE_LIMIT)] {
            postmaster::signal(account, pid, name).await;
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                match self.ended()? {
                    Some(status) if status.success() => {
                        self.dismiss_watchdog();
                        return Ok(());
                    }
                    Some(status) => return Err(self.bury(status)),
                    None => sleep(POLL).await,
                }
            }
            tracing::warn!(pid, "PostgreSQL did not stop within {} s", limit.as_secs());
        }
        Err(EmbeddedError::DoesNotStop {
            pid,
            seconds: (FAST_LIMIT + IMMEDIATE_LIMIT).as_secs(),
        })
    }

    fn launch(plan: &Plan<'_>) -> Result<Self, EmbeddedError> {
        let log = ServerLog::open(&plan.log)?;
        let program = plan.installation.bin_dir.join("postgres");
        let mut command = plan.account.command(&program);
        command.arg("-D").arg(plan.cluster).args(arguments(plan));
        command.stdout(log.writer()?).stderr(log.writer()?);
        // Ctrl-C in the terminal is for us; the server goes when we have drained.
        command.process_group(0);
        let mut postgres = command
            .spawn()
            .map_err(EmbeddedError::io("run", &program))?;
        let watchdog = watch(postgres.id(), plan).inspect_err(|_| {
            // Unwatched it would outlive us. So early it has nothing to lose.
            let _ = postgres.kill().and_then(|()| postgres.wait());
        })?;
        Ok(Self {
            postgres,
            watchdog,
            log,
        })
    }

    /// Waits without a limit while the server lives: replaying a long log after a crash takes
    /// minutes, and starting over would only begin it anew.
    async fn ready(&mut self, cluster: &Path) -> Result<(), EmbeddedError> {
        /// After this long, the one who waits wants to know.
        const TELL_EVERY: Duration = Duration::from_secs(10);
        let mut tell_at = Instant::now() + TELL_EVERY;
        while postmaster::state(cluster) != Some((self.pid(), true)) {
            if let Some(status) = self.ended()? {
                return Err(self.bury(status));
            }
            if Instant::now() >= tell_at {
                tracing::info!(
                    "PostgreSQL is still starting, see {}",
                    self.log.path().display()
                );
                tell_at += TELL_EVERY;
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Answers how the server ended, if it has.
    pub(super) fn crash(&mut self) -> Result<Option<EmbeddedError>, EmbeddedError> {
        Ok(self.ended()?.map(|status| self.bury(status)))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, EmbeddedError> {
        self.postgres
            .try_wait()
            .map_err(EmbeddedError::io("wait for", Path::new("postgres")))
    }

    /// Makes the error of a server that ended by itself.
    fn bury(&mut self, status: ExitStatus) -> EmbeddedError {
        self.dismiss_watchdog();
        EmbeddedError::Ended {
            status,
            log: self.log.path().to_owned(),
            tail: self.log.tail(),
        }
    }

    /// Ends the watchdog once the server has ended: from now on another process may get the
    /// server's number. Should the watchdog be gone already, fine.
    fn dismiss_watchdog(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

/// Starts the watchdog; its input is a pipe whose other end only we hold.
fn watch(pid: u32, plan: &Plan<'_>) -> Result<Child, EmbeddedError> {
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

/// The server's parameters. Ours come last, so they win over those of the settings; everything
/// else stays at PostgreSQL's default, and `ALTER SYSTEM` can change it.
fn arguments(plan: &Plan<'_>) -> Vec<OsString> {
    let safe = if plan.durable { "on" } else { "off" };
    let ours = [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("port", &PORT.to_string()),
        ("fsync", safe),
        ("synchronous_commit", safe),
        ("full_page_writes", safe),
        // Messages go to the log file that we opened.
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("log_line_prefix", "%m [%p] "),
        // Statements are short, and a hardened system lets nobody write code that it runs.
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
    arguments.push(socket_directories(plan.socket_dir));
    arguments
}

/// The parameter is a list; quotes keep a comma or a space in the path from splitting it.
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
    fn quotes_the_socket_directory() {
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
