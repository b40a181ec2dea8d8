//! The private PostgreSQL, for `serve` without a database URL and for the tests.
//!
//! Everything is in one data directory:
//! * `cluster/`: the files of PostgreSQL
//! * `socket/`: the Unix socket, in a directory that no other user can enter; there is no TCP port
//! * `postgresql.log`: the log of the server
//! * `lock`: excludes a second service
//! * `postgresql-<version>/`: a downloaded server, if none was installed
//!
//! The server stops with this process, even if the process is killed.

mod account;
mod cluster;
#[cfg(feature = "download-postgres")]
mod download;
mod error;
mod find;
mod log;
mod postmaster;
mod progress;
mod server;
mod socket;

use std::env;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::error::EmbeddedError;

use self::account::Account;
use self::find::Installation;
use self::postmaster::POLL;
use self::server::{Plan, Server};

/// Settings of the private PostgreSQL.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data directory, which is created if it is missing.
    pub data_dir: PathBuf,
    /// Whether an acknowledged write survives a power failure. Only tests disable this.
    pub durable: bool,
    /// Additional parameters of the server, for example `max_connections`.
    pub parameters: Vec<(String, String)>,
    /// The directory of PostgreSQL's programs; `None` to search for it.
    pub bin_dir: Option<PathBuf>,
}

impl Settings {
    /// Returns the settings of production: durable, all else by default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durable: true,
            parameters: Vec::new(),
            bin_dir: None,
        }
    }
}

/// Returns the default data directory: `/var/lib/bridgebook` for root, else a directory below the
/// user's directory for application data.
pub fn default_data_dir() -> Result<PathBuf, EmbeddedError> {
    if account::effective_uid()? == 0 {
        return Ok(PathBuf::from("/var/lib/bridgebook"));
    }
    let xdg = env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let parent = match (xdg, env::home_dir()) {
        (Some(xdg), _) => xdg,
        (None, Some(home)) if cfg!(target_os = "macos") => home.join("Library/Application Support"),
        (None, Some(home)) => home.join(".local/share"),
        (None, None) => return Err(EmbeddedError::NoHome),
    };
    Ok(parent.join("bridgebook"))
}

/// A running private PostgreSQL. Dropping it stops the server asynchronously; [`Embedded::stop`] waits
/// for the end.
#[derive(Debug)]
pub struct Embedded {
    // Declared before the lock, because fields are dropped in order.
    server: Server,
    account: Account,
    installation: Installation,
    socket_dir: PathBuf,
    _lock: File,
}

/// Whether a data directory contains a cluster.
#[must_use]
pub fn exists(data_dir: &Path) -> bool {
    cluster::path(data_dir).exists()
}

/// Whether a service or a command uses a data directory.
#[must_use]
pub fn is_running(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Returns the URL of the database in a data directory, which is valid while the server runs.
pub fn database_url(data_dir: &Path) -> Result<String, EmbeddedError> {
    let data_dir = data_dir
        .canonicalize()
        .map_err(EmbeddedError::io("find", data_dir))?;
    Ok(socket::url(&socket::choose(&data_dir)))
}

impl Embedded {
    /// Starts PostgreSQL on the data directory, and creates the cluster and the database on the first
    /// start. Returns when the server accepts connections.
    pub async fn start(settings: Settings) -> Result<Self, EmbeddedError> {
        let begin = Instant::now();
        let data_dir = create_data_dir(&settings.data_dir)?;
        let lock = lock(&data_dir).await?;
        let cluster = cluster::path(&data_dir);
        let account = Account::choose(&cluster)?;
        let installation = install(&settings, &data_dir, cluster::major(&cluster)?).await?;
        account
            .require_access(&data_dir, &installation.bin_dir)
            .await?;
        if cluster::major(&cluster)?.is_none() {
            cluster::create(&data_dir, &installation, &account, settings.durable).await?;
        }
        let socket_dir = socket::prepare(&data_dir, &account)?;
        postmaster::clear(&cluster, &socket_dir, &account).await?;
        tracing::info!(
            version = installation.version,
            path = %installation.bin_dir.display(),
            "starting PostgreSQL"
        );
        let server = Server::start(&Plan {
            cluster: &cluster,
            socket_dir: &socket_dir,
            log: data_dir.join("postgresql.log"),
            installation: &installation,
            account: &account,
            durable: settings.durable,
            parameters: &settings.parameters,
        })
        .await?;
        let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(duration_ms, "PostgreSQL is ready");
        Ok(Self {
            server,
            account,
            installation,
            socket_dir,
            _lock: lock,
        })
    }

    /// Returns the URL of the database, for tokio-postgres and libpq.
    pub fn database_url(&self) -> String {
        socket::url(&self.socket_dir)
    }

    /// Returns the directory of the programs of this version: `pg_dump`, `psql`, `pgbench`.
    pub fn bin_dir(&self) -> &Path {
        &self.installation.bin_dir
    }

    /// Returns the directory of the socket, for `-h` of those programs.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Returns the port, for `-p`.
    pub fn port(&self) -> u16 {
        socket::PORT
    }

    /// Returns the role that owns the database, for `-U`.
    pub fn user(&self) -> &'static str {
        socket::USER
    }

    /// Returns the name of the database, for `-d`.
    pub fn database(&self) -> &'static str {
        socket::DATABASE
    }

    /// Returns the process id of the server's main process, the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Waits until the server ends without a request to stop. Returns how it ended.
    pub async fn crashed(&mut self) -> EmbeddedError {
        /// Long enough to cost nothing, short enough that few calls fail before the restart.
        const INTERVAL: Duration = Duration::from_millis(200);
        loop {
            match self.server.crash() {
                Ok(Some(crash)) | Err(crash) => return crash,
                Ok(None) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Stops the server and waits for its end: a fast shutdown, after 30 s an immediate one. An
    /// immediate shutdown loses no data, but the next start replays the write-ahead log.
    ///
    /// # Errors
    /// [`EmbeddedError::Ended`] if the server has crashed.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        self.server.stop(&self.account).await?;
        tracing::info!("PostgreSQL stopped");
        Ok(())
    }
}

/// Creates the directory if it is missing. Returns its canonical path.
fn create_data_dir(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let failed = |error| EmbeddedError::io("create", data_dir)(error);
    if !data_dir.try_exists().map_err(failed)? {
        fs::create_dir_all(data_dir).map_err(failed)?;
        // The server may run as another user, which reaches the cluster through this directory.
        // Private content has restricted permissions of its own.
        fs::set_permissions(data_dir, Permissions::from_mode(0o711)).map_err(failed)?;
    }
    data_dir.canonicalize().map_err(failed)
}

/// Locks the data directory. The operating system releases the lock when this process ends.
async fn lock(data_dir: &Path) -> Result<File, EmbeddedError> {
    /// A supervisor may start a service while the killed one before it is still exiting.
    const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
    let path = data_dir.join("lock");
    let failed = |error| EmbeddedError::io("lock", &path)(error);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(POLL).await
            }
            Err(TryLockError::WouldBlock) => {
                return Err(EmbeddedError::InUse {
                    data_dir: data_dir.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Finds PostgreSQL, or downloads it if none fits and the settings name no directory.
async fn install(
    settings: &Settings,
    data_dir: &Path,
    cluster_major: Option<u32>,
) -> Result<Installation, EmbeddedError> {
    match find::find(settings.bin_dir.as_deref(), data_dir, cluster_major) {
        #[cfg(feature = "download-postgres")]
        Err(EmbeddedError::NoInstallation {
            wanted,
            found,
            apt,
            brew,
        }) if settings.bin_dir.is_none() => download::download(data_dir, cluster_major)
            .await
            .map_err(|reason| {
                let found =
                    format!("{found}, and downloading it from github.com failed ({reason})");
                EmbeddedError::NoInstallation {
                    wanted,
                    found,
                    apt,
                    brew,
                }
            }),
        outcome => outcome,
    }
}
