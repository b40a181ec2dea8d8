//! The cluster: the files of PostgreSQL, with one database.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::account::{Account, run};
use super::error::EmbeddedError;
use super::find::Installation;
use super::progress::spinner;
use super::socket::{DATABASE, USER};

/// Returns the directory of the cluster.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster")
}

/// Returns the major version of the cluster, or `None` if there is no cluster yet.
pub(super) fn major(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    let exists = cluster
        .try_exists()
        .map_err(EmbeddedError::io("look for", cluster))?;
    if !exists {
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
    let _spinner = spinner("creating the database (first start only)");
    remove_unfinished(data_dir);
    // The name is new, because the initdb of a killed service may still be writing to an old one.
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unfinished = data_dir.join(format!("{UNFINISHED}{}", age.as_nanos()));
    DirBuilder::new()
        .mode(0o700)
        .create(&unfinished)
        .map_err(EmbeddedError::io("create", &unfinished))?;
    account.give(&unfinished)?;
    init(&unfinished, installation, account, durable).await?;
    create_database(&unfinished, installation, account, durable).await?;
    fs::rename(&unfinished, &cluster).map_err(EmbeddedError::io("rename", &unfinished))?;
    remove_unfinished(data_dir);
    // Makes the rename survive a power failure, as the files do.
    File::open(data_dir)
        .and_then(|directory| directory.sync_all())
        .map_err(EmbeddedError::io("sync", data_dir))
}

/// Removes the unfinished clusters of killed services. A failure only wastes space until the next
/// start.
fn remove_unfinished(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
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
