//! The log of the server, which is rotated so that it does not fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::account::{Account, last_lines};
use super::error::EmbeddedError;
use super::files::create_for;

/// The name of the log in the data directory.
pub(super) const LOG: &str = "postgresql.log";

/// The size at which the log is rotated, in bytes: weeks of an ordinary log. The log and its
/// predecessor take at most about twice this.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The interval between two checks of the size. A statement that fails 10,000 times a second adds
/// about 10 MB in between.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The log file of the server.
#[derive(Debug)]
pub(super) struct ServerLog {
    path: PathBuf,
    file: File,
    /// Its length when this server started, in bytes; 0 once it has been truncated.
    begin: AtomicU64,
}

impl ServerLog {
    /// Opens the log for appending, and rotates it for as long as the result lives.
    pub(super) fn open(path: &Path, account: &Account) -> Result<Arc<Self>, EmbeddedError> {
        let failed = |error| EmbeddedError::io("open", path)(error);
        if path.symlink_metadata().is_err() {
            create_for(account, OpenOptions::new().mode(0o600), path).map_err(failed)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let log = Self {
            path: path.to_owned(),
            file,
            begin: AtomicU64::new(0),
        };
        log.rotate().map_err(failed)?;
        let begin = log.file.metadata().map_err(failed)?.len();
        log.begin.store(begin, Ordering::Relaxed);
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
            let begin = self.begin.load(Ordering::Relaxed);
            let from = file.metadata()?.len().saturating_sub(BYTES).max(begin);
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
            self.begin.store(0, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_log_is_that_of_this_server_also_after_a_rotation() {
        let name = format!("bridgebook-log-{}", std::process::id());
        let path = std::env::temp_dir().join(name).with_extension("log");
        fs::write(&path, "FATAL: of an earlier server\n").unwrap();
        let log = ServerLog::open(&path, &Account::of_process().unwrap()).unwrap();
        assert_eq!(log.tail(), "");
        let mut server = log.writer().unwrap();
        writeln!(server, "FATAL: of this server").unwrap();
        assert_eq!(log.tail(), "FATAL: of this server");
        server.set_len(MAX_BYTES + 1).unwrap();
        log.rotate().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        writeln!(server, "FATAL: after it").unwrap();
        assert_eq!(log.tail(), "FATAL: after it");
        fs::remove_file(path.with_extension("log.1")).unwrap();
        fs::remove_file(path).unwrap();
    }
}
