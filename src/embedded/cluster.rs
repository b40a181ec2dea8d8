//! The cluster: the files of PostgreSQL, with one database.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::account::{Account, run};
use super::error::EmbeddedError;
use super::files::{create_for, is_there, sync};
use super::find::Installation;
use super::moved;
use super::processes::kill_leftovers;
use super::socket::{DATABASE, USER};
use crate::util::progress::spinner;

/// Returns the directory of the cluster.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster")
}

/// Returns the directory of a complete cluster that replaces the other one.
pub(super) fn next(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster.next")
}

/// The file that records that a data directory has had a cluster.
const CREATED: &str = "cluster.created";

/// Its text, for operators.
const CREATED_TEXT: &str = "\
bridgebook has created a database in the directory cluster beside this file.
If that directory is missing, bridgebook does not start, because it would begin with an empty database.
Remove this file to begin with an empty one.
";

/// Returns whether a data directory has a cluster, or one that the next start completes.
pub(super) fn exists(data_dir: &Path) -> Result<bool, EmbeddedError> {
    Ok(is_there(&path(data_dir))? || is_there(&next(data_dir))?)
}

/// Fails if a data directory has no cluster, but a new one in it would hide that data is
/// elsewhere: in a cluster that has vanished, or in one that others run at its top. Fails also if the
/// database was moved elsewhere.
pub(super) fn check(data_dir: &Path) -> Result<(), EmbeddedError> {
    // Read first, because another start may be creating the cluster, and then this file.
    let was_created = is_there(&data_dir.join(CREATED))?;
    if exists(data_dir)? {
        return moved::check(data_dir);
    }
    if was_created {
        return Err(gone(data_dir));
    }
    check_usable(data_dir)
}

/// Fails if a data directory is a cluster that others run, or its database was moved elsewhere.
pub(super) fn check_usable(data_dir: &Path) -> Result<(), EmbeddedError> {
    moved::check(data_dir)?;
    match is_there(&data_dir.join("PG_VERSION"))? {
        true => Err(EmbeddedError::ForeignCluster {
            data_dir: data_dir.to_owned(),
        }),
        false => Ok(()),
    }
}

/// Returns whether the files of a cluster in use have been removed. An error of the file system does
/// not tell.
pub(super) fn has_vanished(data_dir: &Path) -> bool {
    matches!(is_there(&path(data_dir).join("PG_VERSION")), Ok(false))
}

/// Returns the error of a data directory whose cluster has vanished.
pub(super) fn gone(data_dir: &Path) -> EmbeddedError {
    EmbeddedError::ClusterGone {
        cluster: path(data_dir),
        created: data_dir.join(CREATED),
    }
}

/// Records that the data directory has a cluster.
pub(super) fn record(data_dir: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let created = data_dir.join(CREATED);
    if is_there(&created)? {
        return Ok(());
    }
    create_for(account, &mut OpenOptions::new(), &created)
        .and_then(|mut file| file.write_all(CREATED_TEXT.as_bytes()))
        .map_err(EmbeddedError::io("write", &created))?;
    sync(data_dir)
}

/// Returns the major version of the cluster, or `None` if there is no cluster yet.
pub(super) fn major(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    if !is_there(cluster)? {
        return Ok(None);
    }
    let path = cluster.join("PG_VERSION");
    let text = fs::read_to_string(&path).map_err(EmbeddedError::io("read", &path))?;
    let major = text.trim().parse().map_err(|_| {
        EmbeddedError::io("parse", &path)(io::Error::other(format!(
            "expected a version, got {:?}",
            text.trim()
        )))
    })?;
    Ok(Some(major))
}

/// The prefix of the names of unfinished clusters.
const UNFINISHED: &str = "cluster.new-";

/// Creates the cluster. It is renamed to its final name when it is complete, so that a crash leaves
/// only a directory that the next start removes.
pub(super) async fn create(
    data_dir: &Path,
    installation: &Installation,
    account: &Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let cluster = path(data_dir);
    tracing::info!(path = %cluster.display(), "creating the cluster");
    let unfinished = create_unfinished(data_dir, installation, account, durable).await?;
    fs::rename(&unfinished, &cluster).map_err(EmbeddedError::io("rename", &unfinished))?;
    sync(data_dir)
}

/// Creates a cluster under a name that the next start removes. Returns its path.
pub(super) async fn create_unfinished(
    data_dir: &Path,
    installation: &Installation,
    account: &Account,
    durable: bool,
) -> Result<PathBuf, EmbeddedError> {
    let _spinner = spinner("creating the database (first start only)");
    let unfinished = unfinished_name(data_dir);
    let created = async {
        DirBuilder::new()
            .mode(0o700)
            .create(&unfinished)
            .map_err(EmbeddedError::io("create", &unfinished))?;
        account.give(&unfinished)?;
        init(&unfinished, installation, account, durable).await?;
        create_database(&unfinished, installation, account, durable).await
    };
    let created = created.await.inspect_err(|_| {
        // The next start may be one that creates nothing.
        let _ = fs::remove_dir_all(&unfinished);
    });
    created.map(|()| unfinished)
}

/// Returns a name for an unfinished cluster. It is new, because the initdb of a killed service may
/// still be writing to an old one.
pub(super) fn unfinished_name(data_dir: &Path) -> PathBuf {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    data_dir.join(format!("{UNFINISHED}{}", age.as_nanos()))
}

/// Removes the unfinished clusters of killed services and commands, and kills their servers. A failure
/// only wastes space until the next start.
pub(super) async fn remove_unfinished(data_dir: &Path, account: &Account) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            kill_leftovers(&entry.path(), account).await;
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

async fn init(
    directory: &Path,
    installation: &Installation,
    account: &Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let mut command = account.command(&installation.bin_dir.join("initdb"));
    command
        .arg("--pgdata")
        .arg(directory)
        .args(["--username", USER]);
    // The C locale sorts by bytes. The order is the same on every machine and after every upgrade
    // of the operating system, and an index serves prefix searches.
    command.args(["--encoding=UTF8", "--locale=C", "--data-checksums"]);
    // Access to the directory of the socket is access to the database. TCP is rejected.
    command.args([
        "--auth-local=trust",
        "--auth-host=reject",
        "--no-instructions",
    ]);
    if !durable {
        command.arg("--no-sync");
    }
    run(command, "").await.map(drop)
}

/// Creates the database in single-user mode, which needs no client program and completes before the
/// cluster gets its final name.
async fn create_database(
    directory: &Path,
    installation: &Installation,
    account: &Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let mut command = account.command(&installation.bin_dir.join("postgres"));
    command.args(["--single", "-c", "exit_on_error=on"]);
    command.args(["-c", if durable { "fsync=on" } else { "fsync=off" }]);
    command.arg("-D").arg(directory).arg("template1");
    run(command, &format!("CREATE DATABASE {DATABASE}\n"))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_cluster_has_no_version() {
        assert!(matches!(major(Path::new("/nonexistent/cluster")), Ok(None)));
    }

    #[test]
    fn a_directory_without_a_cluster_is_an_error() {
        let text = major(Path::new("/etc")).map_err(|error| error.to_string());
        assert_eq!(text, Err("cannot read /etc/PG_VERSION".to_owned()));
    }
}
