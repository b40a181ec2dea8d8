//! The cluster: PostgreSQL's files, with the one database in it.

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

/// Returns where the cluster is.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster")
}

/// Reads which major version made the cluster; none when there is no cluster yet.
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
        EmbeddedError::io("understand", &path)(io::Error::other(format!(
            "{:?} is no version",
            text.trim()
        )))
    })?;
    Ok(Some(major))
}

/// How the names of unfinished clusters begin.
const UNFINISHED: &str = "cluster.new-";

/// Creates the cluster. It gets its name when it is whole, so that a crash on the way
/// leaves nothing but a directory that the next start throws away.
pub(super) async fn create(
    data_dir: &Path,
    installation: &Installation,
    account: &Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let cluster = path(data_dir);
    tracing::info!("creating the cluster in {}", cluster.display());
    let _spinner = spinner("creating the database, only this first time");
    remove_unfinished(data_dir);
    // A name never used before: the initdb of a service that was killed may still be writing.
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
    // The rename must survive a power cut as the files do.
    File::open(data_dir)
        .and_then(|directory| directory.sync_all())
        .map_err(EmbeddedError::io("sync", data_dir))
}

/// Throws away what killed services left; what resists is only waste, and may go next time.
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
    // The C locale sorts by bytes: the same on every machine and after every upgrade of the
    // operating system, and an index serves prefix searches.
    command.args(["--encoding=UTF8", "--locale=C", "--data-checksums"]);
    // Who may enter the socket's directory may enter the database; nobody else, and not by TCP.
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

/// Creates the database in single-user mode: it needs no client program, and it belongs
/// to what is either done as a whole or not at all.
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
    fn a_directory_that_is_no_cluster_is_an_error() {
        let text = major(Path::new("/etc")).map_err(|error| error.to_string());
        assert_eq!(text, Err("cannot read /etc/PG_VERSION".to_owned()));
    }
}
