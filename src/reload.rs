//! Files that somebody replaces while we run, without telling us.

use std::{error::Error, path::Path, time::Duration};

use crate::error::chain;

/// How often files are read again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    path: std::path::PathBuf,
    #[source]
    source: std::io::Error,
}

/// Reads a file.
///
/// # Errors
/// If it can't be read.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    std::fs::read(path).map_err(|source| ReadError {
        path: path.to_owned(),
        source,
    })
}

/// Reads files again and again, for ever, and applies what has changed. What does
/// not work is told, and what was there before stays. `what` is their name for people.
pub async fn watch<C: PartialEq, E: Error>(
    what: &str,
    read: impl Fn() -> Result<C, E>,
    apply: impl Fn(&C) -> Result<(), E>,
) {
    let mut last = read().ok();
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let changed = match read() {
            Ok(contents) if last.as_ref() == Some(&contents) => continue,
            Ok(contents) => apply(&contents).map(|()| contents),
            Err(error) => Err(error),
        };
        match changed {
            Ok(contents) => {
                tracing::info!("{what} changed, and were read again");
                last = Some(contents);
            }
            // Of two files one may have been replaced, and the other will be in a moment.
            Err(error) => tracing::error!("{what} stay as they were: {}", chain(&error)),
        }
    }
}
