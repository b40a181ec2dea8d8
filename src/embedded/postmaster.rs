//! The postmaster, the main process of the server: its state in the pid file, and how to stop one
//! that outlived its service.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::{Account, run};
use super::error::EmbeddedError;
use super::socket::lock_file;

/// The interval of polling whether the server is ready or gone. A poll is one small read.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// The timeout of a fast shutdown, which ends all sessions and writes all changed pages. A slow disk
/// needs seconds.
pub(super) const FAST_LIMIT: Duration = Duration::from_secs(30);

/// The timeout of an immediate shutdown, which only ends processes.
pub(super) const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// The file with the process id and the state of a postmaster.
const PID_FILE: &str = "postmaster.pid";

/// The process that has the id in the pid file.
#[derive(Debug, PartialEq, Eq)]
enum Process {
    /// The postmaster of this cluster.
    Postmaster,
    /// A process that got the id later.
    Other,
    /// None, or one that this user may not inspect. PostgreSQL itself handles both correctly.
    None,
}

/// Reads the pid file. Returns the process id and whether the server accepts connections.
pub(super) fn state(cluster: &Path) -> Option<(u32, bool)> {
    parse(&fs::read_to_string(cluster.join(PID_FILE)).ok()?)
}

/// Parses the pid file. Line 1 is the process id, line 8 the state, padded with spaces.
fn parse(text: &str) -> Option<(u32, bool)> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
    Some((pid, ready))
}

/// Sends a signal. An error is only logged: callers wait for the process to end, with a timeout.
pub(super) async fn signal(account: &Account, pid: u32, name: &str) {
    let mut command = account.command(Path::new("/bin/sh"));
    // The shell has a built-in kill; not every machine has the program.
    command.args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()]);
    if let Err(error) = run(command, "").await {
        tracing::debug!(%error, pid, name, "cannot send a signal");
    }
}

/// Cleans up after an earlier service. Stops a server that still runs, because its settings and
/// version may differ, and makes a stale pid file harmless.
pub(super) async fn clear(
    cluster: &Path,
    socket_dir: &Path,
    account: &Account,
) -> Result<(), EmbeddedError> {
    let Some((pid, _)) = state(cluster) else {
        return Ok(());
    };
    match process(pid, cluster) {
        Process::Postmaster => stop_orphan(pid, cluster, account).await,
        Process::Other => disown(cluster, socket_dir, account),
        Process::None => Ok(()),
    }
}

async fn stop_orphan(pid: u32, cluster: &Path, account: &Account) -> Result<(), EmbeddedError> {
    tracing::info!(
        pid,
        "stopping a PostgreSQL that an earlier service left running"
    );
    for (name, limit) in [("INT", FAST_LIMIT), ("QUIT", IMMEDIATE_LIMIT)] {
        signal(account, pid, name).await;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if process(pid, cluster) != Process::Postmaster {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
    Err(EmbeddedError::DoesNotStop {
        pid,
        seconds: (FAST_LIMIT + IMMEDIATE_LIMIT).as_secs(),
    })
}

/// Replaces the process id in a stale pid file by the id of this process.
///
/// Another process has the old id now, and PostgreSQL would take it for a running server. A
/// postmaster ignores the id of its parent. Removing the file instead would also disable the check
/// that no backend of the dead server still writes to the cluster.
fn disown(cluster: &Path, socket_dir: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let path = cluster.join(PID_FILE);
    let fail = |error| EmbeddedError::io("replace", &path)(error);
    let text = fs::read_to_string(&path).map_err(fail)?;
    let rest = text.split_once('\n').map_or("", |(_pid, rest)| rest);
    // Written outside the cluster, because root must not follow a link of the server's user.
    let replacement = cluster.with_extension("pid");
    remove(&replacement).map_err(fail)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&replacement)
        .map_err(fail)?;
    write!(file, "{}\n{rest}", std::process::id()).map_err(fail)?;
    account.give(&replacement)?;
    fs::rename(&replacement, &path).map_err(fail)?;
    // The lock file of the socket has the same id.
    let lock_file = lock_file(socket_dir);
    remove(&lock_file).map_err(EmbeddedError::io("remove", &lock_file))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Finds the process by its working directory, which is the cluster for a postmaster, even after a
/// rename or through a link.
#[cfg(target_os = "linux")]
fn process(pid: u32, cluster: &Path) -> Process {
    use std::os::unix::fs::MetadataExt;
    let proc = Path::new("/proc").join(pid.to_string());
    let Ok(name) = fs::read_to_string(proc.join("comm")) else {
        return Process::None;
    };
    match (fs::metadata(proc.join("cwd")), fs::metadata(cluster)) {
        (Ok(cwd), Ok(cluster))
            if (cwd.dev(), cwd.ino()) == (cluster.dev(), cluster.ino())
                && name.trim() == "postgres" =>
        {
            Process::Postmaster
        }
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => Process::None,
        _ => Process::Other,
    }
}

/// Finds the process by its command line, which names the cluster.
#[cfg(not(target_os = "linux"))]
fn process(pid: u32, cluster: &Path) -> Process {
    let ps = std::process::Command::new("ps")
        .args(["-o", "command=", "-p", &pid.to_string()])
        .output();
    let Ok(ps) = ps else { return Process::None };
    match String::from_utf8_lossy(&ps.stdout).trim() {
        "" => Process::None,
        command if command.contains(&format!("postgres -D {} ", cluster.display())) => {
            Process::Postmaster
        }
        _ => Process::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_is_parsed_in_every_state() {
        let complete =
            "4711\n/d/cluster\n1700000000\n5432\n/d/socket\n\n  5432001         3\nready   \n";
        assert_eq!(parse(complete), Some((4711, true)));
        assert_eq!(
            parse(&complete.replace("ready   ", "starting")),
            Some((4711, false))
        );
        assert_eq!(
            parse("4711\n/d/cluster\n1700000000\n5432\n"),
            Some((4711, false))
        );
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_process_in_another_directory_is_not_the_postmaster() {
        assert_ne!(
            process(std::process::id(), Path::new("/nonexistent")),
            Process::Postmaster
        );
        // Linux gives no process a number above 2^22.
        assert_eq!(
            process(u32::MAX - 1, Path::new("/nonexistent")),
            Process::None
        );
    }
}
