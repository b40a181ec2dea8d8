//! Files and directories of a data directory.

use std::fs::File;
use std::path::Path;

use super::error::EmbeddedError;

/// Returns whether a file or a directory exists.
pub(super) fn is_there(path: &Path) -> Result<bool, EmbeddedError> {
    path.try_exists()
        .map_err(EmbeddedError::io("look for", path))
}

/// Makes new names in a directory survive a power failure, as the files do.
pub(super) fn sync(directory: &Path) -> Result<(), EmbeddedError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(EmbeddedError::io("sync", directory))
}
