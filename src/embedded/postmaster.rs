//! The server's main process, the postmaster, as its pid file and the operating system show
//! it, and what to do about one that outlived its service.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::{Account, run};
use super::error::EmbeddedError;
use super::socket::lock_file;

/// How often we look whether the server is ready or gone; a look is one small read.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// A fast shutdown ends all sessions and writes all changed pages; a slow disk needs seconds.
pub(super) const FAST_LIMIT: Duration = Duration::from_secs(30);

/// An immediate shutdown only has to end processes.
pub(super) const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// The file in which a postmaster leaves its process id and its state.
const PID_FILE: &str = "postmaster.pid";

/// Which process has a pid that was read from the pid file.
#[derive(Debug, PartialEq, Eq)]
enum Process {
    /// The postmaster of this cluster.
    Postmaster,
    /// A process that got the number later.
    Other,
    /// None, or one that we may not look at; PostgreSQL judges these rightly itself.
    None,
}

/// Reads the pid file: the process id, and whether it accepts connections.
pub(super) fn state(cluster: &Path) -> Option<(u32, bool)> {
    parse(&fs::read_to_string(cluster.join(PID_FILE)).ok()?)
}

/// The first line is the process id, the eighth the state, padded with spaces.
fn parse(text: &str) -> Option<(u32, bool)> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
    Some((pid, ready))
}

/// Sends a signal; one that does not arrive is noticed by the process not ending.
pub(super) async fn signal(account: &Account, pid: u32, name: &str) {
    let mut command = account.command(Path::new("/bin/sh"));
    // The shell has a built-in kill; the program of that name is not everywhere.
    command.args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()]);
    if let Err(error) = run(command, "").await {
        tracing::debug!(%error, pid, name, "signal not sent");
    }
}

/// Clears what an earlier service left: a server that still runs is stopped, because its
/// settings and its version may be others; a stale pid file is made harmless.
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
        "stopping the PostgreSQL that an earlier bridgebook left running"
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

/// Makes PostgreSQL see that the pid file is stale although its number lives on as another
/// process, which it takes for a running server. Our own number in its place says so, since a
/// postmaster knows that its parent is no postmaster. Removing the file instead would also
/// remove the check that no backend of the dead server still writes to the cluster.
fn disown(cluster: &Path, socket_dir: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let path = cluster.join(PID_FILE);
    let fail = |error| EmbeddedError::io("replace", &path)(error);
    let text = fs::read_to_string(&path).map_err(fail)?;
    let rest = text.split_once('\n').map_or("", |(_pid, rest)| rest);
    // Written outside of the cluster: as root we follow no link that the server's user made.
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
    // The socket has a lock file with the same number.
    let lock_file = lock_file(socket_dir);
    remove(&lock_file).map_err(EmbeddedError::io("remove", &lock_file))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// A postmaster works in the directory of its cluster, which no rename or link can hide.
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

/// A postmaster of ours was started with the directory of its cluster as an argument.
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
    fn reads_the_pid_file_of_every_stage() {
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
    fn a_process_elsewhere_is_no_postmaster() {
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
