//! Replaces the cluster of a data directory by a new one, for `database restore` and `database upgrade`.
//!
//! The new cluster is filled as `cluster.new-<number>`, which every start removes. Then come three
//! renames, each of which survives a power failure before the next one:
//! 1. `cluster.new-<number>` becomes `cluster.next`: it is complete
//! 2. `cluster` becomes `cluster.old-<version>`, or is dropped if it is empty
//! 3. `cluster.next` becomes `cluster`
//!
//! A start that finds `cluster` and `cluster.next` drops the latter, and everything is as it was. A
//! start that finds only `cluster.next` makes it `cluster`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::account::Account;
use super::client::{Endpoint, Programs};
use super::cluster::{self, next};
use super::error::EmbeddedError;
use super::files::{is_there, sync};
use super::find;
use super::lock::{self, CommandLock};
use super::server::Plan;
use super::{Embedded, Settings, create_data_dir, install, log, moved, socket};

/// Finishes or undoes the replacement of a killed command, and removes unfinished clusters. Returns the
/// account of the cluster.
pub(super) async fn recover(data_dir: &Path) -> Result<Account, EmbeddedError> {
    let (cluster, next) = (cluster::path(data_dir), next(data_dir));
    if is_there(&next)? {
        match is_there(&cluster)? {
            true => rename(&next, &cluster::unfinished_name(data_dir))?,
            false => {
                rename(&next, &cluster)?;
                tracing::info!(path = %cluster.display(), "finished the replacement of the database");
            }
        }
    }
    let account = Account::choose(&cluster)?;
    cluster::remove_unfinished(data_dir, &account).await;
    Ok(account)
}

/// Renames a cluster. The new name survives a power failure.
fn rename(from: &Path, to: &Path) -> Result<(), EmbeddedError> {
    fs::rename(from, to).map_err(EmbeddedError::io("rename", from))?;
    from.parent().map_or(Ok(()), sync)
}

/// The exclusive right of a command to change the cluster of a data directory.
#[derive(Debug)]
pub struct Exclusive {
    data_dir: PathBuf,
    account: Account,
    lock: Arc<File>,
    _command: CommandLock,
}

/// Whether the old cluster is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The old cluster is kept.
    Kept,
    /// The old cluster is removed, because it is empty.
    Removed,
}

impl Exclusive {
    /// Waits for other commands, and excludes them and a service. Creates the data directory if it is
    /// missing.
    ///
    /// # Errors
    /// [`EmbeddedError::InUse`] if a service runs, [`EmbeddedError::Moved`], or that of the file system.
    pub async fn acquire(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let command = CommandLock::acquire_any(data_dir).await?;
        let data_dir = create_data_dir(data_dir)?;
        let lock = Arc::new(lock::lock_server(&data_dir).await?);
        // A command may have moved the database while this one waited.
        moved::check(&data_dir)?;
        Ok(Exclusive {
            account: recover(&data_dir).await?,
            data_dir,
            lock,
            _command: command,
        })
    }

    /// Returns the major version of the cluster, or `None` if there is none.
    ///
    /// # Errors
    /// If its file `PG_VERSION` cannot be read.
    pub fn major(&self) -> Result<Option<u32>, EmbeddedError> {
        cluster::major(&cluster::path(&self.data_dir))
    }

    /// Starts the server of the cluster.
    ///
    /// # Errors
    /// Those of [`Embedded::start`].
    pub async fn start(&self) -> Result<Embedded, EmbeddedError> {
        let settings = Settings::new(&self.data_dir);
        Embedded::start_locked(settings, self.data_dir.clone(), Arc::clone(&self.lock)).await
    }

    /// Creates an empty cluster beside the other one, of the version that a first start would use, and
    /// starts its server.
    ///
    /// # Errors
    /// Those of [`Exclusive::create_with`], and [`EmbeddedError::NoClientProgram`].
    pub async fn create(&self) -> Result<Replacement<'_>, EmbeddedError> {
        let settings = Settings::new(&self.data_dir);
        let installation = install(&settings, &self.data_dir, None).await?;
        self.create_with(Programs::of(installation)?).await
    }

    /// Finds the newest installation above a major version. Returns `None` if there is none.
    ///
    /// # Errors
    /// [`EmbeddedError::NoClientProgram`]; [`EmbeddedError::OldCluster`] if the cluster of an earlier
    /// upgrade is in the way.
    pub fn newer(&self, major: u32) -> Result<Option<Programs>, EmbeddedError> {
        let Some(newer) = find::newer(&self.data_dir, major) else {
            return Ok(None);
        };
        let path = self.old(major);
        match is_there(&path)? {
            true => Err(EmbeddedError::OldCluster { path }),
            false => Programs::of(newer).map(Some),
        }
    }

    /// Does the same as [`Exclusive::create`] with a certain installation. The server of the old cluster
    /// may run, but must not be started afterwards.
    ///
    /// # Errors
    /// Those of [`Embedded::start`], and [`EmbeddedError::NotReplaceable`].
    pub async fn create_with(&self, programs: Programs) -> Result<Replacement<'_>, EmbeddedError> {
        let (data_dir, account) = (&self.data_dir, &self.account);
        require_replaceable(data_dir)?;
        let installation = programs.installation().clone();
        account
            .require_access(data_dir, &installation.bin_dir)
            .await?;
        let cluster = cluster::create_unfinished(data_dir, &installation, account, true).await?;
        let plan = Plan {
            socket_dir: socket::prepare(data_dir, account)?,
            // Its server may run beside that of the other cluster.
            port: socket::NEW_PORT,
            log: data_dir.join(log::LOG),
            cluster: cluster.clone(),
            installation,
            account: account.clone(),
            durable: true,
            parameters: Vec::new(),
        };
        let launched = Embedded::launch(plan, data_dir.clone(), Arc::clone(&self.lock)).await;
        Ok(Replacement {
            embedded: launched.inspect_err(|_| drop(fs::remove_dir_all(&cluster)))?,
            programs,
            cluster,
            of: self,
        })
    }

    /// Records that the database was moved to the hosts `to`, so that no start serves it. Returns the
    /// path of the record.
    ///
    /// # Errors
    /// That of the file system.
    pub fn record_move(&self, to: &str) -> Result<PathBuf, EmbeddedError> {
        moved::record(&self.data_dir, to, &self.account)
    }

    fn old(&self, major: u32) -> PathBuf {
        self.data_dir.join(format!("cluster.old-{major}"))
    }
}

/// Fails if the cluster is a symbolic link or a mount point. A rename of the link would leave its target in
/// place, and a mount point cannot be renamed.
fn require_replaceable(data_dir: &Path) -> Result<(), EmbeddedError> {
    let cluster = cluster::path(data_dir);
    if !is_there(&cluster)? {
        return Ok(());
    }
    let read = |path: &Path| {
        path.symlink_metadata()
            .map_err(EmbeddedError::io("read", path))
    };
    let found = read(&cluster)?;
    match found.is_symlink() || found.dev() != read(data_dir)?.dev() {
        true => Err(EmbeddedError::NotReplaceable { cluster }),
        false => Ok(()),
    }
}

/// A new cluster, and its running server.
#[derive(Debug)]
pub struct Replacement<'a> {
    embedded: Embedded,
    programs: Programs,
    cluster: PathBuf,
    of: &'a Exclusive,
}

impl Replacement<'_> {
    /// Returns the URL of the new database.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.embedded.database_url()
    }

    /// Returns the new database, for the client programs.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.embedded.endpoint()
    }

    /// Returns the client programs of its version.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Stops the server and removes the cluster.
    pub async fn discard(self) {
        // The next start removes files that remain.
        let _ = self.embedded.stop().await;
        let _ = fs::remove_dir_all(&self.cluster);
    }

    /// Stops the server and puts the cluster in the place of the old one. Returns the path of the old
    /// one, if it is kept.
    ///
    /// # Errors
    /// If the server does not stop regularly, or a rename fails. The old cluster then stays in place, or
    /// the next start puts the new one there.
    pub async fn finish(self, replaced: Replaced) -> Result<Option<PathBuf>, EmbeddedError> {
        let data_dir = &self.of.data_dir;
        let old = match (self.of.major()?, replaced) {
            (Some(major), Replaced::Kept) => Some(self.of.old(major)),
            _ => None,
        };
        self.embedded.stop().await?;
        let (cluster, next) = (cluster::path(data_dir), next(data_dir));
        if old.is_some() {
            warn_of_settings(&cluster);
        }
        rename(&self.cluster, &next)?;
        if is_there(&cluster)? {
            let dropped = || cluster::unfinished_name(data_dir);
            rename(&cluster, &old.clone().unwrap_or_else(dropped))?;
        }
        fs::rename(&next, &cluster).map_err(|source| EmbeddedError::NotInPlace { next, source })?;
        sync(data_dir)?;
        cluster::record(data_dir, &self.of.account)?;
        cluster::remove_unfinished(data_dir, &self.of.account).await;
        Ok(old)
    }
}

/// Warns if a cluster has settings of `ALTER SYSTEM`. Another version may not start with them.
fn warn_of_settings(cluster: &Path) {
    let path = cluster.join("postgresql.auto.conf");
    let text = fs::read_to_string(path).unwrap_or_default();
    let settings = text.lines().filter(|line| !line.starts_with('#'));
    let settings: Vec<_> = settings.filter(|line| !line.is_empty()).collect();
    if !settings.is_empty() {
        tracing::warn!(
            settings = settings.join("; "),
            "settings made with ALTER SYSTEM are not taken along; make them again"
        );
    }
}
