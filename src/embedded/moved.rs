//! The record of a move: the database was copied to another PostgreSQL, which is the book of record
//! since then. Serving the private copy as well would make two.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::EmbeddedError;
use super::files::{create_for, is_there, sync};

/// The file. Its first line names the other database.
const MOVED: &str = "cluster.moved";

/// Its further lines, for operators.
const TEXT: &str = "\
`bridgebook database move-out` has copied the database in the directory cluster beside this file.
bridgebook refuses to serve it, because rows written here would be missing there.
Once you no longer need it, remove the whole directory.
To use this database instead, remove this file. It lacks what was written to the other one.
";

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join(MOVED)
}

/// Fails if the database was moved elsewhere.
pub(super) fn check(data_dir: &Path) -> Result<(), EmbeddedError> {
    let marker = marker(data_dir);
    if !is_there(&marker)? {
        return Ok(());
    }
    let text = fs::read_to_string(&marker).map_err(EmbeddedError::io("read", &marker))?;
    let to = text.lines().next().unwrap_or_default().to_owned();
    Err(EmbeddedError::Moved { to, marker })
}

/// Records that the database was moved to the hosts `to`. Returns the path of the record.
pub(super) fn record(
    data_dir: &Path,
    to: &str,
    account: &Account,
) -> Result<PathBuf, EmbeddedError> {
    let marker = marker(data_dir);
    let unfinished = marker.with_extension("moved.new");
    let write = || {
        // A killed command may have left it.
        let _ = fs::remove_file(&unfinished);
        let mut file = create_for(account, &mut OpenOptions::new(), &unfinished)?;
        write!(file, "{to}\n\n{TEXT}")?;
        file.sync_all()?;
        fs::rename(&unfinished, &marker)
    };
    write().map_err(EmbeddedError::io("write", &marker))?;
    sync(data_dir)?;
    Ok(marker)
}
