//! The server's log, which may not fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::account::last_lines;
use super::error::EmbeddedError;

/// Weeks of an ordinary log; the log and its predecessor take at most about twice this.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Even a statement that fails 10,000 times a second adds only some 100 MB in between.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The file that the server writes its messages to.
#[derive(Debug)]
pub(super) struct ServerLog {
    path: PathBuf,
    file: File,
    /// How long it was when this server began to write.
    begin: u64,
}

impl ServerLog {
    /// Opens the log for appending and keeps it short for as long as it is held.
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
        log.shorten().map_err(failed)?;
        log.begin = log.file.metadata().map_err(failed)?.len();
        let log = Arc::new(log);
        tokio::spawn(keep_short(Arc::downgrade(&log)));
        Ok(log)
    }

    /// Returns a handle for the server to write to.
    pub(super) fn writer(&self) -> Result<File, EmbeddedError> {
        self.file
            .try_clone()
            .map_err(EmbeddedError::io("open", &self.path))
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the last lines that this server wrote; nothing where that fails, as it is only
    /// asked for to explain another failure.
    pub(super) fn tail(&self) -> String {
        /// More than the lines we show, however long they are within reason.
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

    /// Copies a long log away and empties it. The server keeps its handle, as it appends; the
    /// few lines that it writes between copy and cut are lost.
    fn shorten(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > LONGEST {
            fs::copy(&self.path, self.path.with_extension("log.1"))?;
            self.file.set_len(0)?;
        }
        Ok(())
    }
}

async fn keep_short(log: Weak<ServerLog>) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Some(log) = log.upgrade() else { return };
        let shortened = tokio::task::spawn_blocking(move || log.shorten()).await;
        if let Ok(Err(error)) = shortened {
            tracing::warn!(%error, "cannot shorten the log of PostgreSQL");
        }
    }
}
