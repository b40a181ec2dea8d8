//! Errors of the private PostgreSQL, with texts for its operator.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// Why the private PostgreSQL does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A file, a directory or a program could not be used.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// The failed action, as a verb: "create", "read", "run".
        action: &'static str,
        /// The file, directory or program.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The environment names no home directory.
    #[error("no home directory found; set --data-dir")]
    NoHome,

    /// Another process has locked the data directory.
    #[error("the data directory {path} is in use by another bridgebook; stop the service, or wait for the other command", path = data_dir.display())]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
    },

    /// A command found no cluster in the data directory.
    #[error(
        "no database found in {path}; set --data-dir or --database-url; `bridgebook serve` and \
         `bridgebook migrate up` create one",
        path = data_dir.display()
    )]
    NoCluster {
        /// The data directory.
        data_dir: PathBuf,
    },

    /// The data directory itself is a cluster, which bridgebook has not created.
    #[error(
        "{path} is the data directory of a PostgreSQL, and bridgebook would create an empty \
         database beside it; set --database-url to use that PostgreSQL, or choose another --data-dir",
        path = data_dir.display()
    )]
    ForeignCluster {
        /// The data directory.
        data_dir: PathBuf,
    },

    /// The cluster has vanished.
    #[error(
        "the database {cluster} has vanished; put it back, or run `bridgebook database restore` \
         with a backup; to begin with an empty database instead, remove {created}",
        cluster = cluster.display(),
        created = created.display()
    )]
    ClusterGone {
        /// The directory of the cluster.
        cluster: PathBuf,
        /// The file that records that there was one.
        created: PathBuf,
    },

    /// The database was moved elsewhere.
    #[error(
        "the database was moved to {to}; set --database-url to use it there; to use what was here at \
         the time of the move instead, remove {marker}",
        marker = marker.display()
    )]
    Moved {
        /// The hosts of the other database.
        to: String,
        /// The file that records the move.
        marker: PathBuf,
    },

    /// The cluster of an earlier upgrade is in the way.
    #[error("{path} exists, the database before an earlier upgrade; move it elsewhere or remove it", path = path.display())]
    OldCluster {
        /// The directory.
        path: PathBuf,
    },

    /// The cluster cannot be renamed.
    #[error(
        "{cluster} is a symbolic link or a mount point, so a new database cannot take its place; make \
         the data directory itself the link or the mount point",
        cluster = cluster.display()
    )]
    NotReplaceable {
        /// The directory of the cluster.
        cluster: PathBuf,
    },

    /// A new cluster is complete, but has not got its name.
    #[error(
        "cannot rename {next}; the new database in it is complete, and the next start puts it in place",
        next = next.display()
    )]
    NotInPlace {
        /// The directory of the new cluster.
        next: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// An installation lacks a client program.
    #[error(
        "PostgreSQL {major} in {bin_dir} has no {program}; install its client programs (Debian, \
         Ubuntu: `apt-get install postgresql-client-{major}`; Fedora: `dnf install postgresql`)",
        bin_dir = bin_dir.display()
    )]
    NoClientProgram {
        /// The directory of the installation.
        bin_dir: PathBuf,
        /// Its major version.
        major: u32,
        /// The missing program.
        program: &'static str,
    },

    /// No installation of PostgreSQL fits the cluster.
    #[error(
        "no {wanted} was found{found}; install it (Debian, Ubuntu: `apt-get install {apt}`; \
         Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql@{brew}`) \
         or set --database-url to use another database"
    )]
    NoInstallation {
        /// The versions that fit, and the reason.
        wanted: String,
        /// Installations that do not fit, and failed attempts; empty, or begins with a separator.
        found: String,
        /// The name of the package on Debian and Ubuntu.
        apt: String,
        /// The major version of the Homebrew package.
        brew: u32,
    },

    /// This process runs as root, and no unprivileged user exists for the server.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither a user postgres nor nobody; \
         run bridgebook as an ordinary user"
    )]
    NoAccount,

    /// The cluster belongs to root, as which PostgreSQL refuses to run.
    #[error(
        "{path} belongs to root, and PostgreSQL does not run as root; give it to another user \
         with `chown -R`",
        path = cluster.display()
    )]
    OwnedByRoot {
        /// The directory of the cluster.
        cluster: PathBuf,
    },

    /// The unprivileged user has no access to a directory.
    #[error(
        "PostgreSQL runs as the user {user}, which has no access to {path}; run \
         `chmod o+x {path}`, or choose another data directory",
        path = path.display()
    )]
    NoAccess {
        /// The directory or program.
        path: PathBuf,
        /// The name of the user, or its id if it has no name.
        user: String,
    },

    /// The directory of the socket is not safe to use.
    #[error("the socket directory {path} is not safe: {why}; remove it and start again", path = path.display())]
    SocketDir {
        /// The directory.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },

    /// A program of PostgreSQL failed.
    #[error("{program} failed ({status}): {output}", program = program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of its output.
        output: String,
    },

    /// The server ended before it was ready, or while it was in use.
    #[error("PostgreSQL ended ({status}); its log {path} ends with:\n{tail}", path = log.display())]
    Ended {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The log of the server.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },

    /// The server of a running service does not become ready.
    #[error(
        "the PostgreSQL of the running service did not accept connections within {seconds} s; its \
         log {path} says why",
        path = log.display()
    )]
    NotReady {
        /// The time waited, in seconds.
        seconds: u64,
        /// The log of the server.
        log: PathBuf,
    },

    /// The server did not stop in time.
    #[error("PostgreSQL, process {pid}, did not stop within {seconds} s")]
    DoesNotStop {
        /// The process id of its postmaster.
        pid: u32,
        /// The time waited, in seconds.
        seconds: u64,
    },
}

/// The message for a full disk, in the log of the server.
const NO_SPACE: &str = "No space left on device";

impl EmbeddedError {
    /// Returns whether the disk of the data directory is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::NotInPlace { source, .. } => {
                source.kind() == io::ErrorKind::StorageFull
            }
            Self::Program { output, .. } => output.contains(NO_SPACE),
            Self::Ended { tail, .. } => tail.contains(NO_SPACE),
            _ => false,
        }
    }

    /// Returns whether the reader of an output was gone.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        const SIGPIPE: i32 = 13;
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::BrokenPipe,
            Self::Program { status, .. } => status.signal() == Some(SIGPIPE),
            _ => false,
        }
    }

    /// Returns whether another attempt may succeed without a change of the settings, for example once
    /// a disk has space again.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::NotInPlace { .. }
            | Self::Program { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::DoesNotStop { .. } => true,
            Self::NoHome
            | Self::InUse { .. }
            | Self::NoCluster { .. }
            | Self::ForeignCluster { .. }
            | Self::ClusterGone { .. }
            | Self::Moved { .. }
            | Self::OldCluster { .. }
            | Self::NotReplaceable { .. }
            | Self::NoClientProgram { .. }
            | Self::NoInstallation { .. }
            | Self::NoAccount
            | Self::OwnedByRoot { .. }
            | Self::NoAccess { .. }
            | Self::SocketDir { .. } => false,
        }
    }

    /// Returns a function for `map_err` that adds the action and the path to an I/O error.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
