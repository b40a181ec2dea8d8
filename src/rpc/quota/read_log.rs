//! The lines of the log about quotas that cannot be read.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often the log repeats that quotas cannot be read.
const REPEAT: Duration = Duration::from_secs(60);

/// The outcome of the reads so far. One task reads at a time.
#[derive(Debug, Default)]
pub(super) struct ReadLog(Mutex<Reads>);

#[derive(Debug, Default)]
struct Reads {
    /// Whether quotas were ever read.
    has_read: bool,
    /// When the log last said that reads fail; `None` if the last read did not.
    logged_at: Option<Instant>,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// Quotas were never read.
    NotRead,
    /// The quotas that were read before stay in force.
    NotReadAgain,
    /// A read has succeeded after those that failed.
    ReadAgain,
}

impl ReadLog {
    /// Notes that a read has succeeded.
    pub(super) fn succeeded(&self) {
        if self.next(Outcome::Read, Instant::now()).is_some() {
            tracing::info!("quotas can be read again");
        }
    }

    /// Notes that a read has failed, with its cause.
    pub(super) fn failed(&self, cause: &str) {
        match self.next(Outcome::Failed, Instant::now()) {
            Some(Line::NotRead) => tracing::error!(
                cause,
                "cannot read quotas; no call is admitted until they are read"
            ),
            Some(_) => {
                tracing::warn!(cause, "cannot read quotas; those read before stay in force");
            }
            None => {}
        }
    }

    /// Notes the outcome of a read. Returns the line to log, if one is due.
    fn next(&self, outcome: Outcome, now: Instant) -> Option<Line> {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Read => {
                reads.has_read = true;
                reads.logged_at.take().map(|_| Line::ReadAgain)
            }
            Outcome::Failed => {
                let logged_at = reads.logged_at;
                if logged_at.is_some_and(|at| now.saturating_duration_since(at) < REPEAT) {
                    return None;
                }
                reads.logged_at = Some(now);
                Some(match reads.has_read {
                    true => Line::NotReadAgain,
                    false => Line::NotRead,
                })
            }
        }
    }
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Read,
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_a_minute_and_its_end_once() {
        let (log, begin) = (ReadLog::default(), Instant::now());
        let next = |outcome, second| log.next(outcome, begin + Duration::from_secs(second));
        assert_eq!(next(Outcome::Failed, 0), Some(Line::NotRead));
        assert_eq!(next(Outcome::Failed, 59), None);
        assert_eq!(next(Outcome::Failed, 60), Some(Line::NotRead));
        assert_eq!(next(Outcome::Read, 61), Some(Line::ReadAgain));
        assert_eq!(next(Outcome::Read, 63), None);
        assert_eq!(next(Outcome::Failed, 65), Some(Line::NotReadAgain));
        assert_eq!(next(Outcome::Failed, 67), None);
        assert_eq!(next(Outcome::Read, 69), Some(Line::ReadAgain));
    }

    #[test]
    fn reads_that_succeed_are_not_logged() {
        let log = ReadLog::default();
        assert_eq!(log.next(Outcome::Read, Instant::now()), None);
    }
}
