//! The limit of the next batch.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum weight of a batch: that of as many items without large documents. Beyond a few
/// hundred items statements get no faster per item, and the first item waits for the last.
const MAX_WEIGHT: usize = 512;

/// The maximum weight of the next batch. While documents are too large to be read together, it is
/// about the weight of those that are.
pub(super) struct BatchLimit(AtomicUsize);

impl Default for BatchLimit {
    fn default() -> Self {
        BatchLimit(AtomicUsize::new(MAX_WEIGHT))
    }
}

impl BatchLimit {
    /// Returns the limit; at least 1.
    pub(super) fn weight(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the limit after a batch that answered jobs of this weight, and all jobs or not.
    pub(super) fn adapt(&self, answered: usize, is_complete: bool) {
        let limit = self.weight();
        let limit = match is_complete {
            // A batch that was not full says nothing about a larger one.
            true if answered < limit => limit,
            true => limit + (limit / 4).max(1),
            false => answered,
        };
        self.0.store(limit.clamp(1, MAX_WEIGHT), Ordering::Relaxed);
    }
}
