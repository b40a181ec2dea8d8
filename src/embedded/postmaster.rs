//! The pid file of the postmaster, the main process of the server: its state, and what an earlier
//! service left.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::account::Account;
use super::error::EmbeddedError;
use super::processes::{Process, STOP, kill_leftovers, process, stop};
use super::socket::lock_file;

/// The file with the process id and the state of a postmaster.
const PID_FILE: &str = "postmaster.pid";

/// Reads the pid file. Returns the process id and whether the server accepts connections.
pub(super) fn state(cluster: &Path) -> Option<(u32, bool)> {
    parse(&fs::read_to_string(cluster.join(PID_FILE)).ok()?)
}

/// Parses the pid file. Line 1 is the process id, line 8 the state, padded with spaces.
fn parse(text: &str) -> Option<(u32, bool)> {
    let mut lines = text.lines();
    // PostgreSQL reads it as a signed number.
    let pid: i32 = lines.next()?.trim().parse().ok()?;
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
    Some((pid, ready))
}

/// Cleans up after an earlier service. Stops a server that still runs, because its settings and
/// version may differ, and makes a stale pid file harmless.
pub(super) async fn clear(
    cluster: &Path,
    (socket_dir, port): (&Path, u16),
    account: &Account,
) -> Result<(), EmbeddedError> {
    let pid_file = cluster.join(PID_FILE);
    match state(cluster) {
        Some((pid, _)) => match process(pid, cluster) {
            Process::Server => stop_orphan(pid, cluster, account).await?,
            Process::Other => disown(&pid_file, cluster, account)?,
            Process::None => {}
        },
        // A full disk or a power failure leaves an empty file, which PostgreSQL refuses.
        None if fs::exists(&pid_file).map_err(EmbeddedError::io("look for", &pid_file))? => {
            tracing::warn!(path = %pid_file.display(), "removing a pid file that names no process");
            kill_leftovers(cluster, account).await;
            remove(&pid_file)?;
        }
        None => {}
    }
    kill_leftovers(cluster, account).await;
    // The lock file of the socket has the same id, or the same damage.
    remove(&lock_file(socket_dir, port))
}

async fn stop_orphan(pid: u32, cluster: &Path, account: &Account) -> Result<(), EmbeddedError> {
    tracing::info!(
        pid,
        "stopping a PostgreSQL that an earlier service left running"
    );
    let has_ended = || Ok(process(pid, cluster) != Process::Server);
    stop(pid, cluster, account, &STOP, has_ended)
        .await
        .map(drop)
}

/// Replaces the process id in a stale pid file by the id of this process.
///
/// Another process has the old id now, and PostgreSQL would take it for a running server. A
/// postmaster ignores the id of its parent. Removing the file instead would also disable the check
/// that no backend of the dead server still writes to the cluster.
fn disown(pid_file: &Path, cluster: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let fail = |error| EmbeddedError::io("replace", pid_file)(error);
    let text = fs::read_to_string(pid_file).map_err(fail)?;
    let rest = text.split_once('\n').map_or("", |(_pid, rest)| rest);
    // Written outside the cluster, because root must not follow a link of the server's user.
    let replacement = cluster.with_extension("pid");
    remove(&replacement)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&replacement)
        .map_err(fail)?;
    write!(file, "{}\n{rest}", std::process::id()).map_err(fail)?;
    account.give(&replacement)?;
    fs::rename(&replacement, pid_file).map_err(fail)
}

fn remove(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(EmbeddedError::io("remove", path)),
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
        for damaged in ["", "\n", "x\n", "0\n", "-7\n", "4294967295\n"] {
            assert_eq!(parse(damaged), None, "{damaged:?}");
        }
    }
}
