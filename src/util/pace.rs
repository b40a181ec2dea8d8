//! Pauses in work that takes long, so that other tasks of the thread run meanwhile.

use tokio::task::yield_now;

/// Size of the rows that are read, converted or encoded without a pause, in bytes. It takes some
/// hundred microseconds: reading one MiB of JSON takes five milliseconds.
pub const SLICE_BYTES: usize = 64 * 1024;

/// Counts the bytes since the last pause.
#[derive(Debug, Default)]
pub struct Pace(usize);

impl Pace {
    /// Counts bytes that were read. Lets other tasks run after each slice.
    pub async fn add(&mut self, bytes: usize) {
        self.0 += bytes;
        if self.0 >= SLICE_BYTES {
            self.0 = 0;
            yield_now().await;
        }
    }
}
