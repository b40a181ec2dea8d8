//! The cutoff of a shutdown: calls that it no longer waits for get an answer instead of a broken
//! connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

/// Ends the calls in progress. Cheap to clone; clones share the state.
#[derive(Debug, Clone)]
pub struct Cutoff {
    is_cut_off: Arc<watch::Sender<bool>>,
    calls: Arc<AtomicU64>,
}

impl Default for Cutoff {
    fn default() -> Self {
        Cutoff {
            is_cut_off: Arc::new(watch::Sender::new(false)),
            calls: Arc::default(),
        }
    }
}

impl Cutoff {
    /// Ends all calls in progress, and those that still begin.
    pub fn cut_off(&self) {
        self.is_cut_off.send_replace(true);
    }

    /// Returns the number of calls that it ended.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Runs a call. Returns `None` if the cutoff ended it.
    pub(super) async fn or_cut_off<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut is_cut_off = self.is_cut_off.subscribe();
        tokio::select! {
            biased;
            result = work => Some(result),
            // Fails only without a sender, and this is one.
            _ = is_cut_off.wait_for(|is_cut_off| *is_cut_off) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}
