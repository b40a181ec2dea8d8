//! Errors of the private PostgreSQL, with texts for its operator.

use std::io;
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
    #[error("the data directory {path} is in use by another bridgebook", path = data_dir.display())]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
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

    /// The server did not stop in time.
    #[error("PostgreSQL, process {pid}, did not stop within {seconds} s")]
    DoesNotStop {
        /// The process id of its postmaster.
        pid: u32,
        /// The time waited, in seconds.
        seconds: u64,
    },
}

impl EmbeddedError {
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
