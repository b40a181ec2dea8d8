//! The one place that decides whether and when something is tried again.

use std::time::{Duration, Instant};

use super::{DbError, outage::OUTAGE_GRACE};
use crate::util::backoff::jittered;

/// How often a failure that may pass at once, such as a deadlock, is tried again.
const TRANSIENT_RETRIES: u32 = 4;
/// The first pause; every next one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Counts the retries of one piece of work.
#[derive(Debug)]
pub struct Retries {
    /// When it first failed because the database was away.
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
    /// For work that has been retried already as a part of more: waits for a
    /// database that is away, and no more than that.
    #[must_use]
    pub fn spent() -> Self {
        Retries {
            transient: TRANSIENT_RETRIES,
            ..Retries::default()
        }
    }

    /// After a failure: how long to wait before the next try, or `None` to give up.
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
