//! What can go wrong with the private PostgreSQL, worded for the operator who reads it.

use std::io;
use std::path::{Path, PathBuf};

/// Says why the private PostgreSQL is not there; the text is complete without its source.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A file or directory of ours could not be used.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried, as a verb: "create", "read", "run".
        action: &'static str,
        /// The file, directory or program it was tried with.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },

    /// No place for the data follows from the environment.
    #[error("there is no home directory to keep data in; name a data directory")]
    NoHome,

    /// Another service holds the lock of this data directory.
    #[error("the data directory {path} is in use by another bridgebook", path = data_dir.display())]
    InUse {
        /// The directory both want.
        data_dir: PathBuf,
    },

    /// No installation of PostgreSQL can run the cluster.
    #[error(
        "no {wanted} was found{found}; install it (Debian, Ubuntu: `apt-get install {apt}`; \
         Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql@{brew}`) \
         or name a database of your own with --database-url"
    )]
    NoInstallation {
        /// Which versions would do, and why.
        wanted: String,
        /// What was found or tried instead; empty, or begins with a separator.
        found: String,
        /// The package on Debian and Ubuntu.
        apt: String,
        /// The major version to ask Homebrew for.
        brew: u32,
    },

    /// We are root, and there is no unprivileged user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither a user postgres nor nobody; \
         run bridgebook as an ordinary user"
    )]
    NoAccount,

    /// The cluster belongs to root, whom PostgreSQL refuses to run as.
    #[error(
        "{path} belongs to root, and PostgreSQL does not run as root; give it to another user \
         with `chown -R`",
        path = cluster.display()
    )]
    OwnedByRoot {
        /// The directory of the cluster.
        cluster: PathBuf,
    },

    /// The unprivileged user cannot reach a directory on the way.
    #[error(
        "PostgreSQL runs as the user {user}, who may not enter {path}; allow it with \
         `chmod o+x {path}`, or choose a data directory elsewhere",
        path = path.display()
    )]
    NoAccess {
        /// The directory or program that is closed to the user.
        path: PathBuf,
        /// The user's name, or its number where that is all we know.
        user: String,
    },

    /// The directory for the socket is not safely ours.
    #[error("{path} cannot hold the socket: {why}; remove it and start again", path = path.display())]
    SocketDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },

    /// A program of PostgreSQL failed.
    #[error("{program} failed ({status}): {output}", program = program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it wrote.
        output: String,
    },

    /// The server ended before it was ready, or while it was in use.
    #[error("PostgreSQL ended ({status}); its log {path} ends with:\n{tail}", path = log.display())]
    Ended {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The server's log.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },

    /// A server does not end although it was told to.
    #[error("PostgreSQL, process {pid}, did not stop within {seconds} s")]
    DoesNotStop {
        /// The process id of its postmaster.
        pid: u32,
        /// How long we waited in all.
        seconds: u64,
    },
}

impl EmbeddedError {
    /// Makes the mapper of an I/O error at `path`, for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
