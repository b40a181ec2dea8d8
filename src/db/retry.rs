//! The retry policy: whether to retry a database error, and after which pause.

use std::time::{Duration, Instant};

use super::{DbError, outage::OUTAGE_GRACE};
use crate::util::backoff::jittered;

/// How many times a transient error, such as a deadlock, is retried.
const TRANSIENT_RETRIES: u32 = 4;
/// The first pause. Each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The retries of one query or batch.
#[derive(Debug)]
pub struct Retries {
    /// When an attempt first failed because the database was unavailable.
    unavailable_since: Option<Instant>,
    transient: u32,
    pause: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            unavailable_since: None,
            transient: 0,
            pause: FIRST_PAUSE,
        }
    }
}

impl Retries {
    /// Returns retries without those of transient errors: only an unavailable database is retried.
    /// They are for a part of a batch that used up its own, and for callers that try fewer rows.
    #[must_use]
    pub fn spent() -> Self {
        Retries {
            transient: TRANSIENT_RETRIES,
            ..Retries::default()
        }
    }

    /// Returns the pause before the next attempt; `None` to give up.
    pub fn pause_after(&mut self, error: &DbError) -> Option<Duration> {
        let again = if error.is_unavailable() {
            self.unavailable_since
                .get_or_insert_with(Instant::now)
                .elapsed()
                < OUTAGE_GRACE
        } else {
            self.transient += 1;
            error.is_transient() && self.transient <= TRANSIENT_RETRIES
        };
        again.then(|| {
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            jittered(pause)
        })
    }
}
