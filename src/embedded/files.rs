//! Files and directories of a data directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::account::Account;
use super::error::EmbeddedError;

/// Returns whether a file or a directory exists.
pub(super) fn is_there(path: &Path) -> Result<bool, EmbeddedError> {
    path.try_exists()
        .map_err(EmbeddedError::io("look for", path))
}

/// Syncs a directory, so that new names in it survive a power failure.
pub(super) fn sync(directory: &Path) -> Result<(), EmbeddedError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(EmbeddedError::io("sync", directory))
}

/// Creates a file that the account owns. After a command as root, a service that runs as the owner of the
/// cluster can use the file, too. Fails if the file exists, also as a link, which could lead elsewhere.
pub(super) fn create_for(
    account: &Account,
    options: &mut OpenOptions,
    path: &Path,
) -> io::Result<File> {
    let file = options.write(true).create_new(true).open(path)?;
    account.give_file(&file)?;
    Ok(file)
}
