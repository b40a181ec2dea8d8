//! Reads small files, and reloads them when they change.

use std::{
    error::Error,
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::util::error_chain::error_chain;

/// The interval of reading files again.
const INTERVAL: Duration = Duration::from_secs(5);

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    path: std::path::PathBuf,
    #[source]
    source: std::io::Error,
}

/// The largest file in bytes: enough for many certificates, or tens of thousands of subjects.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a regular file.
///
/// # Errors
/// If the file is unreadable, not a regular file, which might never end, or too large.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_regular(path).map_err(|source| ReadError {
        path: path.to_owned(),
        source,
    })
}

fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before it is opened, because opening a pipe waits for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_BYTES} bytes")));
    }
    let mut contents = Vec::new();
    File::open(path)?
        .take(MAX_BYTES)
        .read_to_end(&mut contents)?;
    Ok(contents)
}

/// Reads files at an interval, and at SIGHUP, and applies changed contents. Never returns. An error is
/// logged, and the earlier contents stay in force. `what` names the files in the log. `loaded` is in
/// force: it was read before, so a file that has been replaced since then counts as changed.
pub async fn watch<C, E>(
    what: &str,
    loaded: C,
    read: impl Fn() -> Result<C, E> + Clone + Send + 'static,
    apply: impl Fn(&C) -> Result<(), E>,
) where
    C: PartialEq + Send + 'static,
    E: Error + Send + 'static,
{
    let mut last = loaded;
    // Fails only without the resources for signals. Then the interval remains.
    let mut hangups = signal(SignalKind::hangup()).ok();
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = hangup => {}
        }
        // Reading may block, for example on a network file system.
        let Ok(contents) = tokio::task::spawn_blocking(read.clone()).await else {
            continue;
        };
        let changed = match contents {
            Ok(contents) if last == contents => continue,
            Ok(contents) => apply(&contents).map(|()| contents),
            Err(error) => Err(error),
        };
        match changed {
            Ok(contents) => {
                tracing::info!(files = what, "files reloaded");
                last = contents;
            }
            // One of two files may be replaced before the other. The next read then succeeds.
            Err(error) => tracing::error!(
                files = what,
                cause = error_chain(&error),
                "cannot reload files, the earlier contents stay in force"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn pipes_and_devices_are_not_read() {
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
