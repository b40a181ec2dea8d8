//! Helpers shared by backup, restore, move-out and upgrade.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, database::checked};
use crate::{
    config::{ConfigErrors, DatabaseSettings, DatabaseSource},
    db::copy,
    embedded::{EmbeddedError, Exclusive, Replaced, Replacement},
};

/// Why a backup, a restore, a move or an upgrade failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A database does not fit, or cannot be checked.
    #[error(transparent)]
    Database(#[from] copy::CopyError),
    /// A file could not be used.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// The failed action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The backup would replace a file.
    #[error("{path} exists; choose another file, or add --force to replace it", path = .0.display())]
    Exists(PathBuf),
    /// The backup would replace a directory, a device or a link.
    #[error("{path} exists and is not a regular file; choose another file", path = .0.display())]
    NotAFile(PathBuf),
    /// The backup would go to a terminal.
    #[error(
        "a backup is binary and does not go to a terminal; name a file, or redirect the output"
    )]
    Terminal,
    /// The file is not in the format of a dump.
    #[error(
        "{path} is not a dump in PostgreSQL's custom format; expected a file of `bridgebook database \
         backup` or `pg_dump -Fc`. A dump in SQL is restored with psql",
        path = .0.display()
    )]
    NotADump(PathBuf),
    /// The dump cannot be restored.
    #[error(
        "cannot restore {path}, and nothing was changed; the cause may be the file (incomplete, or of a \
         newer pg_dump) or the server, whose log is postgresql.log in the data directory",
        path = path.display()
    )]
    NotRestored {
        /// The dump.
        path: PathBuf,
        /// The error of `pg_restore`.
        source: EmbeddedError,
    },
    /// Copying to the target failed.
    #[error("cannot copy the database to {target}, and both databases are unchanged")]
    NotCopied {
        /// The hosts of the target.
        target: String,
        /// The error of `pg_dump` or `pg_restore`.
        source: EmbeddedError,
    },
    /// The restore would replace rows.
    #[error(
        "the database in {data_dir} has {rows} rows already; restore into another --data-dir",
        data_dir = data_dir.display()
    )]
    NotEmpty {
        /// The data directory.
        data_dir: PathBuf,
        /// The number of its rows.
        rows: i64,
    },
    /// The client programs are too old to verify the certificate of the target.
    #[error(
        "sslrootcert=system needs the client programs of PostgreSQL 16 or newer, not {0}; name a file \
         with the roots, for example /etc/ssl/certs/ca-certificates.crt"
    )]
    SystemRoots(u32),
    /// The target has the tables, but the move is not complete.
    #[error(
        "the tables were copied to {target}, but the move is not complete; the private database is \
         unchanged; drop the tables in the target and run the command again"
    )]
    Incomplete {
        /// The hosts of the target.
        target: String,
        /// The reason.
        source: copy::CopyError,
    },
    /// A signal has interrupted the command.
    #[error("interrupted; the private database is unchanged")]
    Interrupted,
    /// A signal has interrupted a move.
    #[error(
        "interrupted; the private database is unchanged; if {0} has tables of bridgebook, drop them \
         and run the command again"
    )]
    MoveInterrupted(String),
}

impl CopyError {
    /// Returns a function for `map_err` that adds the action and the path to an I/O error.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| CopyError::File {
            action,
            path,
            source,
        }
    }
}

impl From<copy::CopyError> for CliError {
    fn from(error: copy::CopyError) -> Self {
        CliError::Copy(error.into())
    }
}

/// Returns the data directory of the private PostgreSQL. An external one has other programs, which
/// `instead` names.
pub(super) fn private(
    database: DatabaseSettings,
    command: &str,
    instead: &str,
) -> Result<PathBuf, CliError> {
    match checked(database)? {
        DatabaseSource::Embedded(data_dir) => Ok(data_dir),
        DatabaseSource::External(_) => Err(ConfigErrors::from(vec![format!(
            "--database-url: `database {command}` is for the private PostgreSQL, and DATABASE_URL or a \
             PG variable names another one; {instead}, or unset it and set --data-dir"
        )])
        .into()),
    }
}

/// Runs `work` until it ends, or a signal interrupts it. Later signals have no effect, so that what
/// follows is completed.
pub(super) async fn interruptible<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => return result,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Err(CopyError::Interrupted.into())
}

/// Fills a new cluster and puts it in the place of the old one. If that fails, everything stays as it
/// was. Returns the outcome of `fill`, and the path of the old cluster if it is kept.
pub(super) async fn replace<T>(
    replacement: Replacement<'_>,
    replaced: Replaced,
    fill: impl AsyncFnOnce(&Replacement<'_>) -> Result<T, CliError>,
) -> Result<(T, Option<PathBuf>), CliError> {
    match interruptible(fill(&replacement)).await {
        Ok(filled) => Ok((filled, replacement.finish(replaced).await?)),
        Err(error) => {
            replacement.discard().await;
            Err(error)
        }
    }
}

/// Locks a data directory that has a cluster, and is not used by a service.
pub(super) async fn lock(data_dir: &Path) -> Result<Exclusive, CliError> {
    crate::embedded::require_cluster(data_dir).map_err(CliError::NoDatabase)?;
    Ok(Exclusive::acquire(data_dir).await?)
}
