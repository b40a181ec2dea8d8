//! The private PostgreSQL, for `serve` without a database URL and for the tests.
//!
//! Everything is in one data directory:
//! * `cluster/`: the files of PostgreSQL
//! * `socket/`: the Unix socket, in a directory that no other user can enter; there is no TCP port
//! * `postgresql.log`: the log of the server
//! * `cluster.created`: records that there has been a cluster, so that a lost one is noticed
//! * `cluster.moved`: records that the database was moved elsewhere, so that it is not served twice
//! * `cluster.new-<number>`, `cluster.next`: a cluster that replaces the other one, see [`replace`]
//! * `cluster.old-<version>`: the cluster before an upgrade of PostgreSQL
//! * `lock`, `command.lock`: exclude a second service, and commands that run the server themselves
//! * `postgresql-<version>/`: a downloaded server, if none was installed
//!
//! The server stops with this process, even if the process is killed.

mod account;
mod client;
mod client_output;
mod cluster;
#[cfg(feature = "download-postgres")]
mod download;
mod error;
mod files;
mod find;
mod lock;
mod log;
mod moved;
mod postmaster;
mod processes;
mod replace;
mod server;
mod socket;

use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::client::{Endpoint, Programs};
pub use self::error::EmbeddedError;
pub use self::lock::{CommandLock, is_running, wait_until_ready};
pub use self::replace::{Exclusive, Replaced, Replacement};

use self::find::Installation;
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
    /// Whether [`Embedded::crashed`] has reported the end of the server.
    has_crashed: bool,
    plan: Plan,
    data_dir: PathBuf,
    _lock: Arc<File>,
}

/// Checks that a data directory has a cluster, for commands that must not create one.
///
/// # Errors
/// [`EmbeddedError::NoCluster`], or a more precise reason.
pub fn require_cluster(data_dir: &Path) -> Result<(), EmbeddedError> {
    cluster::check(data_dir)?;
    match cluster::exists(data_dir)? {
        true => Ok(()),
        false => Err(EmbeddedError::NoCluster {
            data_dir: data_dir.to_owned(),
        }),
    }
}

/// Returns the URL of the database in a data directory, which is valid while the server runs.
pub fn database_url(data_dir: &Path) -> Result<String, EmbeddedError> {
    let data_dir = data_dir
        .canonicalize()
        .map_err(EmbeddedError::io("find", data_dir))?;
    Ok(socket::url(&socket::choose(&data_dir), socket::PORT))
}

impl Embedded {
    /// Starts PostgreSQL on the data directory, and creates the cluster and the database on the first
    /// start. Returns when the server accepts connections.
    pub async fn start(settings: Settings) -> Result<Self, EmbeddedError> {
        // Before the lock, which would leave a file in a directory of others.
        cluster::check(&settings.data_dir)?;
        let data_dir = create_data_dir(&settings.data_dir)?;
        let lock = Arc::new(lock::lock_server(&data_dir).await?);
        // A command that held the lock may have moved the database.
        cluster::check(&data_dir)?;
        Self::start_locked(settings, data_dir, lock).await
    }

    /// Does the same as [`Embedded::start`] in a data directory that is locked.
    async fn start_locked(
        settings: Settings,
        data_dir: PathBuf,
        lock: Arc<File>,
    ) -> Result<Self, EmbeddedError> {
        let account = replace::recover(&data_dir).await?;
        let cluster = cluster::path(&data_dir);
        let installation = install(&settings, &data_dir, cluster::major(&cluster)?).await?;
        account
            .require_access(&data_dir, &installation.bin_dir)
            .await?;
        if cluster::major(&cluster)?.is_none() {
            cluster::create(&data_dir, &installation, &account, settings.durable).await?;
        }
        cluster::record(&data_dir, &account)?;
        let plan = Plan {
            socket_dir: socket::prepare(&data_dir, &account)?,
            port: socket::PORT,
            log: data_dir.join(log::LOG),
            cluster,
            installation,
            account,
            durable: settings.durable,
            parameters: settings.parameters,
        };
        Self::launch(plan, data_dir, lock).await
    }

    async fn launch(plan: Plan, data_dir: PathBuf, lock: Arc<File>) -> Result<Self, EmbeddedError> {
        Ok(Self {
            server: launch(&plan).await?,
            has_crashed: false,
            plan,
            data_dir,
            _lock: lock,
        })
    }

    /// Starts the server again after a crash.
    ///
    /// # Errors
    /// [`EmbeddedError::ClusterGone`] if the cluster has vanished meanwhile: a new one would hide the
    /// loss of all data.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        if !cluster::exists(&self.data_dir)? {
            return Err(cluster::gone(&self.data_dir));
        }
        self.server = launch(&self.plan).await?;
        self.has_crashed = false;
        Ok(())
    }

    /// Returns the URL of the database, for tokio-postgres and libpq.
    pub fn database_url(&self) -> String {
        socket::url(&self.plan.socket_dir, self.plan.port)
    }

    /// Returns the directory of the programs of this version: `pg_dump`, `psql`, `pgbench`.
    pub fn bin_dir(&self) -> &Path {
        &self.plan.installation.bin_dir
    }

    /// Returns the directory of the socket, for `-h` of those programs.
    pub fn socket_dir(&self) -> &Path {
        &self.plan.socket_dir
    }

    /// Returns the port, for `-p`.
    pub fn port(&self) -> u16 {
        self.plan.port
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

    /// Logs that a newer major version of PostgreSQL is installed, if there is one. Searches in the
    /// background, so that the start does not wait.
    pub fn log_newer_version(&self) {
        let (data_dir, used) = (self.data_dir.clone(), self.plan.installation.clone());
        tokio::task::spawn_blocking(move || {
            if let Some(newer) = find::newer(&data_dir, used.major) {
                tracing::info!(
                    used = used.version,
                    newer = newer.version,
                    path = %newer.bin_dir.display(),
                    "a newer PostgreSQL is installed; to use it, stop the service and run \
                     `bridgebook database upgrade`"
                );
            }
        });
    }

    /// Waits until the server ends without a request to stop, or its cluster vanishes. Returns how
    /// it ended, or [`EmbeddedError::ClusterGone`].
    pub async fn crashed(&mut self) -> EmbeddedError {
        /// Long enough to cost nothing, short enough that few calls fail before the restart.
        const INTERVAL: Duration = Duration::from_millis(200);
        loop {
            match self.server.crash() {
                Ok(Some(crash)) | Err(crash) => {
                    self.has_crashed = true;
                    return crash;
                }
                // The server would go on for up to a minute, and acknowledge writes that are lost.
                Ok(None) if cluster::has_vanished(&self.data_dir) => {
                    return cluster::gone(&self.data_dir);
                }
                Ok(None) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Stops the server and waits for its end: a fast shutdown, after 30 s an immediate one, and
    /// after 10 s a kill. The last two lose no data, but the next start replays the write-ahead log.
    ///
    /// # Errors
    /// [`EmbeddedError::Ended`] if the server has crashed and nothing has reported it.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        if self.has_crashed {
            return Ok(());
        }
        self.server.stop(&self.plan).await?;
        tracing::info!("PostgreSQL stopped");
        Ok(())
    }
}

/// Starts the server. Returns when it accepts connections.
async fn launch(plan: &Plan) -> Result<Server, EmbeddedError> {
    let begin = Instant::now();
    let socket = (plan.socket_dir.as_path(), plan.port);
    postmaster::clear(&plan.cluster, socket, &plan.account).await?;
    let server = Server::start(plan).await?;
    let installation = &plan.installation;
    tracing::info!(
        version = installation.version,
        path = %installation.bin_dir.display(),
        duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        "PostgreSQL is ready"
    );
    Ok(server)
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
