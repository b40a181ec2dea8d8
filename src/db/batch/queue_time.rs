//! The time that calls wait in the queues of all batches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The longest time for which even the newest call of a batch has waited: zero as long as batches
/// empty their queues. Cheap to clone; clones share the value.
#[derive(Debug, Clone, Default)]
pub struct QueueTime(Arc<AtomicU64>);

impl QueueTime {
    /// Notes how long the newest call of a batch has waited.
    pub(super) fn note(&self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(micros, Ordering::Relaxed);
    }

    /// Returns the value since it was taken last.
    #[must_use]
    pub fn take(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}
