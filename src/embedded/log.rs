//! The log of the server, which is rotated so that it does not fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::account::last_lines;
use super::error::EmbeddedError;

/// The size at which the log is rotated, in bytes: weeks of an ordinary log. The log and its
/// predecessor take at most about twice this.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The interval between two checks of the size. A statement that fails 10,000 times a second adds
/// about 100 MB in between.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The log file of the server.
#[derive(Debug)]
pub(super) struct ServerLog {
    path: PathBuf,
    file: File,
    /// Its length when this server started, in bytes.
    begin: u64,
}

impl ServerLog {
    /// Opens the log for appending, and rotates it for as long as the result lives.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, EmbeddedError> {
        let failed = |error| EmbeddedError::io("open", path)(error);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut log = Self {
            path: path.to_owned(),
            file,
            begin: 0,
        };
        log.rotate().map_err(failed)?;
        log.begin = log.file.metadata().map_err(failed)?.len();
        let log = Arc::new(log);
        tokio::spawn(rotate_regularly(Arc::downgrade(&log)));
        Ok(log)
    }

    /// Returns a handle for the server to write to.
    pub(super) fn writer(&self) -> Result<File, EmbeddedError> {
        self.file
            .try_clone()
            .map_err(EmbeddedError::io("open", &self.path))
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the last lines of this server. Returns an empty text if reading fails, because the
    /// lines only explain another failure.
    pub(super) fn tail(&self) -> String {
        /// More than the lines that are shown, in bytes.
        const BYTES: u64 = 8 * 1024;
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let from = file.metadata()?.len().saturating_sub(BYTES).max(self.begin);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(BYTES).read_to_end(&mut bytes)?;
            Ok(last_lines(&String::from_utf8_lossy(&bytes)))
        };
        read().unwrap_or_default()
    }

    /// Copies a long log and truncates it. The server appends, so its handle stays valid. The few
    /// lines that it writes between the copy and the truncation are lost.
    fn rotate(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > MAX_BYTES {
            fs::copy(&self.path, self.path.with_extension("log.1"))?;
            self.file.set_len(0)?;
        }
        Ok(())
    }
}

async fn rotate_regularly(log: Weak<ServerLog>) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Some(log) = log.upgrade() else { return };
        let rotated = tokio::task::spawn_blocking(move || log.rotate()).await;
        if let Ok(Err(error)) = rotated {
            tracing::warn!(%error, "cannot rotate the log of PostgreSQL");
        }
    }
}
