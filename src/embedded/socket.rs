//! The Unix socket of the server, in a directory that only this user and the server's can enter.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::account::Account;
use super::error::EmbeddedError;

/// The role that owns the database.
pub(super) const USER: &str = "bridgebook";

/// The one database of the cluster.
pub(super) const DATABASE: &str = "bridgebook";

/// The port, which is only part of the socket's file name. PostgreSQL's default keeps the command
/// lines of its clients short.
pub(super) const PORT: u16 = 5432;

/// The port of a second server in the same data directory, which fills a new cluster.
pub(super) const NEW_PORT: u16 = 5433;

/// The parent directory if the path of the socket would be too long. Not $TMPDIR, which can be long
/// too, and inaccessible to the user of the server.
const SHORT_PARENT: &str = "/tmp";

/// The longest path in bytes that fits into `sockaddr_un`: macOS has 104 and Linux 108, with one for
/// the terminator.
const MAX_PATH: usize = 103;

/// Creates the directory of the socket, or checks that an existing one is safe.
pub(super) fn prepare(data_dir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let directory = choose(data_dir);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(EmbeddedError::io("create", &directory)(error));
        }
        _ => {}
    }
    // Any user may have created this name in /tmp, also as a link.
    let metadata =
        fs::symlink_metadata(&directory).map_err(EmbeddedError::io("inspect", &directory))?;
    let refuse = |why| {
        Err(EmbeddedError::SocketDir {
            path: directory.clone(),
            why,
        })
    };
    if !metadata.is_dir() {
        return refuse("it is not a directory");
    }
    if !account.trusts(metadata.uid()) {
        return refuse("it belongs to another user");
    }
    if metadata.mode() & 0o077 != 0 {
        return refuse("other users may enter it");
    }
    account.give(&directory)?;
    Ok(directory)
}

/// Returns the directory of the socket for a data directory, whose path must be canonical.
pub(super) fn choose(data_dir: &Path) -> PathBuf {
    let directory = data_dir.join("socket");
    let path = socket(&directory, PORT).into_os_string();
    // libpq would take a comma for the end of a host.
    if path.len() <= MAX_PATH && !path.as_bytes().contains(&b',') {
        return directory;
    }
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    // Eight bytes are enough to distinguish the data directories of one machine.
    let name = digest
        .iter()
        .take(8)
        .fold(String::from("bridgebook-"), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
    Path::new(SHORT_PARENT).join(name)
}

/// Returns the path of the socket that PostgreSQL creates in `directory`.
pub(super) fn socket(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

/// Returns the path of the lock file beside the socket, which contains the process id.
pub(super) fn lock_file(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}.lock"))
}

/// Returns the URL of the database. The percent-encoded directory takes the place of the host.
pub(super) fn url(directory: &Path, port: u16) -> String {
    let mut host = String::new();
    for byte in directory.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                host.push(char::from(*byte))
            }
            _ => {
                let _ = write!(host, "%{byte:02X}");
            }
        }
    }
    format!("postgres://{USER}@{host}:{port}/{DATABASE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_the_data_directory_if_its_path_fits() {
        assert_eq!(
            choose(Path::new("/var/lib/bridgebook")),
            Path::new("/var/lib/bridgebook/socket")
        );
    }

    #[test]
    fn a_long_data_directory_gets_a_short_socket_directory() {
        let long = |last: char| PathBuf::from(format!("/{}{last}", "d".repeat(90)));
        let directory = choose(&long('a'));
        assert_eq!(directory.parent(), Some(Path::new("/tmp")));
        assert_eq!(directory, choose(&long('a')));
        assert_ne!(directory, choose(&long('b')));
        assert!(socket(&directory, PORT).as_os_str().len() <= MAX_PATH);
    }

    #[test]
    fn the_path_may_use_the_maximum_length() {
        let overhead = "//socket/.s.PGSQL.5432".len();
        let fits = PathBuf::from(format!("/{}", "d".repeat(MAX_PATH - overhead)));
        assert_eq!(choose(&fits), fits.join("socket"));
        let longer = PathBuf::from(format!("{}d", fits.display()));
        assert!(choose(&longer).starts_with("/tmp"));
    }

    #[test]
    fn the_url_encodes_the_directory() {
        assert_eq!(
            url(Path::new("/a b/c%é:@"), PORT),
            "postgres://bridgebook@%2Fa%20b%2Fc%25%C3%A9%3A%40:5432/bridgebook"
        );
    }
}
