//! Files that somebody replaces while we run, without telling us.

use std::{
    error::Error,
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use crate::util::error_chain::error_chain;

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

/// The longest file, in bytes: a few certificates, or tens of thousands of subjects. What
/// is longer is none of those.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file.
///
/// # Errors
/// If it can't be read, is no file but something that may never end, or too long.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_regular(path).map_err(|source| ReadError {
        path: path.to_owned(),
        source,
    })
}

fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: to open a pipe is to wait for who writes to it.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_BYTES} bytes"
        )));
    }
    let mut contents = Vec::new();
    File::open(path)?
        .take(MAX_BYTES)
        .read_to_end(&mut contents)?;
    Ok(contents)
}

/// Reads files again and again, for ever, and applies what has changed. What does
/// not work is told, and what was there before stays. `what` is their name for people.
pub async fn watch<C, E>(
    what: &str,
    read: impl Fn() -> Result<C, E> + Clone + Send + 'static,
    apply: impl Fn(&C) -> Result<(), E>,
) where
    C: PartialEq + Send + 'static,
    E: Error + Send + 'static,
{
    // Where it may block, as a file on a network does.
    let read_aside = async || tokio::task::spawn_blocking(read.clone()).await.ok();
    let mut last = read_aside().await.and_then(Result::ok);
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Some(contents) = read_aside().await else {
            continue;
        };
        let changed = match contents {
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
            Err(error) => tracing::error!("{what} stay as they were: {}", error_chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_may_never_end_is_not_read() {
        let name = format!("bridgebook-pipe-{}", uuid::Uuid::now_v7());
        let pipe = std::env::temp_dir().join(name);
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let refused = read(&pipe).unwrap_err();
        std::fs::remove_file(&pipe).unwrap();
        assert!(
            error_chain(&refused).contains("regular"),
            "{}",
            error_chain(&refused)
        );
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
