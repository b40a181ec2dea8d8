//! The locks of a data directory. The operating system releases them when their process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::Account;
use super::error::EmbeddedError;
use super::files::{create_for, is_there};
use super::log::LOG;
use super::processes::{POLL, Process, process};
use super::{cluster, create_data_dir, postmaster};

/// Held by the process that runs the server.
const SERVER: &str = "lock";

/// Held by a command that runs the server itself, so that other commands wait until it has
/// stopped the server again.
const COMMAND: &str = "command.lock";

/// The interval of trying again to get the lock of a command, which takes seconds.
const COMMAND_POLL: Duration = Duration::from_millis(50);

/// Excludes other processes that would run the server.
pub(super) async fn lock_server(data_dir: &Path) -> Result<File, EmbeddedError> {
    /// A supervisor may start a service while the killed one before it is still exiting.
    const TIMEOUT: Duration = Duration::from_secs(1);
    let file = open(data_dir, SERVER)?;
    let deadline = Instant::now() + TIMEOUT;
    while !try_lock(&file, data_dir)? {
        if Instant::now() >= deadline {
            return Err(EmbeddedError::InUse {
                data_dir: data_dir.to_owned(),
            });
        }
        sleep(POLL).await;
    }
    Ok(file)
}

/// Returns whether a service or a command runs the server of a data directory.
#[must_use]
pub fn is_running(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join(SERVER));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The exclusive right of a command to run the server of a data directory.
#[derive(Debug)]
pub struct CommandLock(#[expect(dead_code, reason = "dropping it releases the lock")] File);

impl CommandLock {
    /// Waits until no other command holds the lock. Creates the data directory if it is missing.
    ///
    /// # Errors
    /// If the data directory is unsuitable, or the lock file cannot be opened.
    pub async fn acquire(data_dir: &Path) -> Result<Self, EmbeddedError> {
        cluster::check(data_dir)?;
        Self::acquire_any(data_dir).await
    }

    /// Does the same as [`CommandLock::acquire`] in a data directory whose cluster may have vanished.
    pub(super) async fn acquire_any(data_dir: &Path) -> Result<Self, EmbeddedError> {
        cluster::check_usable(data_dir)?;
        let data_dir = &create_data_dir(data_dir)?;
        let file = open(data_dir, COMMAND)?;
        let mut is_waiting = false;
        while !try_lock(&file, data_dir)? {
            if !is_waiting {
                is_waiting = true;
                tracing::info!("waiting for another command that uses the data directory");
            }
            sleep(COMMAND_POLL).await;
        }
        Ok(Self(file))
    }
}

/// Waits until the server that another process runs accepts connections or has ended.
///
/// # Errors
/// [`EmbeddedError::NotReady`] after 30 s.
pub async fn wait_until_ready(data_dir: &Path) -> Result<(), EmbeddedError> {
    /// A service that has just started needs a few seconds at most.
    const LIMIT: Duration = Duration::from_secs(30);
    let cluster = cluster::path(data_dir);
    let deadline = Instant::now() + LIMIT;
    let is_ready = || match postmaster::state(&cluster) {
        Some((pid, true)) => process(pid, &cluster) == Process::Server,
        _ => false,
    };
    let mut is_logged = false;
    while !is_ready() && is_running(data_dir) {
        if !is_logged {
            is_logged = true;
            tracing::info!(
                path = %data_dir.display(),
                limit_s = LIMIT.as_secs(),
                "waiting for the PostgreSQL of the running service to accept connections"
            );
        }
        if Instant::now() >= deadline {
            return Err(EmbeddedError::NotReady {
                seconds: LIMIT.as_secs(),
                log: data_dir.join(LOG),
            });
        }
        sleep(COMMAND_POLL).await;
    }
    Ok(())
}

/// Opens a lock file, and creates it if it is missing.
fn open(data_dir: &Path, name: &str) -> Result<File, EmbeddedError> {
    let path = data_dir.join(name);
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if !is_there(&path)? {
        let account = Account::choose(&cluster::path(data_dir))?;
        match create_for(&account, &mut options.clone(), &path) {
            // Another process has created it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            file => return file.map_err(EmbeddedError::io("lock", &path)),
        }
    }
    options
        .open(&path)
        .map_err(EmbeddedError::io("lock", &path))
}

fn try_lock(file: &File, data_dir: &Path) -> Result<bool, EmbeddedError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(EmbeddedError::io("lock", data_dir)(error)),
    }
}
