//! The processes of a server: which ones run, and how to stop them.

#[cfg(any(target_os = "linux", test))]
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::{Account, run};
use super::error::EmbeddedError;

/// The interval of polling whether the server is ready or gone. A poll is one small read.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// One signal, and how long the server may take to end after it.
pub(super) type Step = (&'static str, Duration);

/// The signal that no process can ignore.
const KILL: &str = "KILL";

/// How a server is stopped:
/// * a fast shutdown, which ends all sessions and writes all changed pages; a slow disk needs
///   seconds
/// * an immediate shutdown, which only ends processes
/// * a kill of all its processes
///
/// None of them loses data. After the last two the next start replays the write-ahead log.
pub(super) const STOP: [Step; 3] = [
    ("INT", Duration::from_secs(30)),
    ("QUIT", Duration::from_secs(10)),
    (KILL, Duration::from_secs(10)),
];

/// The process that has a certain id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// A process of this cluster's server.
    Server,
    /// A process that got the id later.
    Other,
    /// None, or one that this user may not inspect. PostgreSQL itself handles both correctly.
    None,
}

/// Stops the server whose postmaster has the id `pid`. Returns the signal that ended it.
///
/// A process that is frozen with SIGSTOP acts on no signal but SIGKILL, so every step also sends
/// SIGCONT, as systemd does.
pub(super) async fn stop(
    pid: u32,
    cluster: &Path,
    account: &Account,
    steps: &[Step],
    mut has_ended: impl FnMut() -> Result<bool, EmbeddedError>,
) -> Result<&'static str, EmbeddedError> {
    for (name, limit) in steps {
        let all = members(pid, cluster);
        if all.iter().any(|pid| is_frozen(*pid)) {
            tracing::warn!(
                pid,
                "PostgreSQL is frozen, continuing it so that it can stop"
            );
        }
        match *name {
            KILL => signal(account, &all, KILL).await,
            name => signal(account, &[pid], name).await,
        }
        signal(account, &all, "CONT").await;
        let deadline = Instant::now() + *limit;
        while Instant::now() < deadline {
            if has_ended()? {
                return Ok(name);
            }
            sleep(POLL).await;
        }
        let seconds = limit.as_secs();
        tracing::warn!(
            pid,
            seconds,
            signal = name,
            "PostgreSQL did not stop in time"
        );
    }
    let seconds = steps.iter().map(|(_, limit)| limit.as_secs()).sum();
    Err(EmbeddedError::DoesNotStop { pid, seconds })
}

/// Kills the processes that a dead postmaster has left. They end by themselves, unless they are
/// frozen or in a long statement, and no new server starts before that.
pub(super) async fn kill_leftovers(cluster: &Path, account: &Account) {
    /// A killed process ends within milliseconds, unless it waits for a disk.
    const LIMIT: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + LIMIT;
    loop {
        let all = servers(cluster);
        if all.is_empty() || Instant::now() > deadline {
            return;
        }
        tracing::warn!(pids = ?all, "killing processes of a PostgreSQL that has no postmaster");
        signal(account, &all, KILL).await;
        while all
            .iter()
            .any(|pid| process(*pid, cluster) == Process::Server)
            && Instant::now() < deadline
        {
            sleep(POLL).await;
        }
    }
}

/// Sends a signal. An error is only logged: callers wait for the process to end, with a timeout.
async fn signal(account: &Account, pids: &[u32], name: &str) {
    let mut command = account.command(Path::new("/bin/sh"));
    // The shell has a built-in kill; not every machine has the program.
    command.args(["-c", r#"name=$1; shift; kill -s "$name" "$@""#, "sh", name]);
    command.args(pids.iter().map(u32::to_string));
    if let Err(error) = run(command, "").await {
        tracing::debug!(%error, ?pids, name, "cannot send a signal");
    }
}

/// Lists the postmaster and its other processes.
fn members(pid: u32, cluster: &Path) -> Vec<u32> {
    let mut all = servers(cluster);
    if !all.contains(&pid) {
        all.push(pid);
    }
    all
}

/// Finds a process by its working directory, which is the cluster for all processes of a server,
/// even after a rename or through a link.
#[cfg(target_os = "linux")]
pub(super) fn process(pid: u32, cluster: &Path) -> Process {
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
            Process::Server
        }
        (Err(error), _) if error.kind() == std::io::ErrorKind::PermissionDenied => Process::None,
        _ => Process::Other,
    }
}

/// Lists the processes of the server of a cluster.
#[cfg(target_os = "linux")]
fn servers(cluster: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| process(*pid, cluster) == Process::Server)
        .collect()
}

/// Returns whether a process is frozen with SIGSTOP.
#[cfg(target_os = "linux")]
fn is_frozen(pid: u32) -> bool {
    // The state stands behind the name, which is in parentheses and may contain some itself.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| state.starts_with('T'))
}

/// Finds a postmaster by its command line, which names the cluster.
#[cfg(not(target_os = "linux"))]
pub(super) fn process(pid: u32, cluster: &Path) -> Process {
    match ps(&["-o", "command=", "-p", &pid.to_string()]).trim() {
        "" => Process::None,
        command if is_postmaster(command, cluster) => Process::Server,
        _ => Process::Other,
    }
}

/// Lists the postmaster of a cluster and its children.
#[cfg(not(target_os = "linux"))]
fn servers(cluster: &Path) -> Vec<u32> {
    let listed = ps(&["-A", "-o", "pid=,ppid=,command="]);
    let processes = listed.lines().filter_map(|line| {
        let (pid, rest) = line.trim().split_once(char::is_whitespace)?;
        let (parent, command) = rest.trim().split_once(char::is_whitespace)?;
        Some((pid.parse().ok()?, parent.parse().ok()?, command))
    });
    let processes: Vec<(u32, u32, &str)> = processes.collect();
    let mut all = processes.iter();
    let postmaster = all.find(|(_, _, command)| is_postmaster(command, cluster));
    let Some((postmaster, ..)) = postmaster else {
        return Vec::new();
    };
    let related = |(pid, parent, _): &&(u32, u32, &str)| pid == postmaster || parent == postmaster;
    processes
        .iter()
        .filter(related)
        .map(|(pid, ..)| *pid)
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn is_postmaster(command: &str, cluster: &Path) -> bool {
    command.contains(&format!("postgres -D {} ", cluster.display()))
}

#[cfg(not(target_os = "linux"))]
fn ps(arguments: &[&str]) -> String {
    let ps = std::process::Command::new("ps").args(arguments).output();
    ps.map(|ps| String::from_utf8_lossy(&ps.stdout).into_owned())
        .unwrap_or_default()
}

/// Only Linux tells it cheaply, and the answer is only for the log.
#[cfg(not(target_os = "linux"))]
fn is_frozen(_pid: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Stdio};

    use super::*;

    const SIGNALS: [&str; 3] = ["INT", "QUIT", KILL];
    /// The time for a signal that is ignored.
    const SHORT: Duration = Duration::from_millis(100);
    /// The time for a signal that ends the process, also on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    /// Starts a shell as the user of the server. Returns when the shell has run `script`.
    fn shell(account: &Account, script: &str) -> Child {
        let script = format!("{script}; echo ready; while :; do sleep 0.1; done");
        let mut command = account.command(Path::new("/bin/sh"));
        let command = command.args(["-c", &script]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the shell ended");
        child
    }

    /// Starts a shell and stops it. Kills it if that fails.
    async fn stop_shell(script: &str, steps: &[Step]) -> Result<&'static str, String> {
        let nowhere = Path::new("/nonexistent");
        let account = Account::choose(nowhere).unwrap();
        let mut child = shell(&account, script);
        let pid = child.id();
        let has_ended = || Ok(child.try_wait().unwrap().is_some());
        let stopped = stop(pid, nowhere, &account, steps, has_ended).await;
        let _ = child.kill();
        let _ = child.wait();
        stopped.map_err(|error| error.to_string().replace(&pid.to_string(), "PID"))
    }

    #[tokio::test]
    async fn each_signal_is_followed_by_a_stronger_one() {
        for (script, expected) in [
            (":", "INT"),
            ("trap '' INT; trap exit QUIT", "QUIT"),
            ("trap '' INT QUIT", KILL),
        ] {
            let ignored = SIGNALS.into_iter().take_while(|it| *it != expected);
            let mut steps: Vec<Step> = ignored.map(|signal| (signal, SHORT)).collect();
            steps.push((expected, LONG));
            assert_eq!(stop_shell(script, &steps).await, Ok(expected), "{script}");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_end_is_an_error_with_its_id() {
        let error = stop_shell("trap '' INT", &[("INT", SHORT)])
            .await
            .unwrap_err();
        assert!(error.contains("process PID"), "{error}");
    }

    #[test]
    fn a_process_in_another_directory_is_not_the_server() {
        let nowhere = Path::new("/nonexistent");
        assert_ne!(process(std::process::id(), nowhere), Process::Server);
        // Linux gives no process a number above 2^22.
        assert_eq!(process(u32::MAX - 1, nowhere), Process::None);
    }
}
