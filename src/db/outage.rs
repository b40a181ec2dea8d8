//! The outage detector: calls fail fast during an outage of the database, instead of each
//! waiting until its deadline.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::DbError;
use crate::domain::error::{Error, Result};

/// How long calls wait for an unavailable database. A restart takes a second or two. After
/// that they fail, and callers decide how long they retry.
pub(super) const OUTAGE_GRACE: Duration = Duration::from_secs(2);

/// Knows since when the database has been unavailable: the health check fails, and no other
/// statement has succeeded since. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutageDetector(Arc<State>);

#[derive(Debug)]
struct State {
    since: watch::Sender<Option<Instant>>,
    /// When the database last answered, in microseconds after `start`.
    answered: AtomicU64,
    /// When it last failed to answer, or refused a connection; 0 for never.
    failed: AtomicU64,
    start: Instant,
}

impl Default for OutageDetector {
    fn default() -> Self {
        OutageDetector(Arc::new(State {
            since: watch::Sender::new(None),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }
}

impl OutageDetector {
    /// Notes that the database did not answer.
    pub fn mark_started(&self) {
        self.note_failure();
        self.0.since.send_if_modified(|since| {
            let is_new = since.is_none();
            since.get_or_insert_with(Instant::now);
            is_new
        });
    }

    /// Notes that the database answered.
    pub fn mark_over(&self) {
        self.0.answered.store(self.now(), Ordering::Relaxed);
        // A read lock is cheaper than a write lock, and outages are rare.
        if self.0.since.borrow().is_some() {
            self.0.since.send_replace(None);
        }
    }

    /// Notes that a statement or a connection failed because the database is unavailable. Only health
    /// checks tell whether that is an outage.
    pub(super) fn note_failure(&self) {
        self.0.failed.store(self.now(), Ordering::Relaxed);
    }

    /// Returns the time in microseconds after `start`, at least 1.
    fn now(&self) -> u64 {
        let now = self.0.start.elapsed().as_micros();
        u64::try_from(now).unwrap_or(u64::MAX).max(1)
    }

    /// Returns whether the database has been unavailable, or has refused a connection, at some time
    /// since `time`.
    #[must_use]
    pub fn has_failed_since(&self, time: Instant) -> bool {
        let failed = self.0.failed.load(Ordering::Relaxed);
        failed > 0 && self.0.start + Duration::from_micros(failed) >= time
    }

    /// Returns whether the database has answered since a time. Health checks ask it more than
    /// once per second.
    pub(super) fn has_answered_since(&self, time: Instant) -> bool {
        let answered = Duration::from_micros(self.0.answered.load(Ordering::Relaxed));
        self.0.start + answered >= time
    }

    /// Waits for `work`, until the database has been unavailable for two seconds. A write may
    /// have been done by then.
    ///
    /// # Errors
    /// Errors of the work, and [`Error::DatabaseUnavailable`].
    pub async fn or_outage<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.grace_expired() => Err(Error::from(DbError::Outage)),
        }
    }

    /// Completes when the outage has lasted for [`OUTAGE_GRACE`].
    async fn grace_expired(&self) {
        let mut since = self.0.since.subscribe();
        loop {
            let began = *since.borrow_and_update();
            let outcome = match began {
                Some(began) => tokio::select! {
                    () = tokio::time::sleep_until(began + OUTAGE_GRACE) => return,
                    outcome = since.changed() => outcome,
                },
                None => since.changed().await,
            };
            if outcome.is_err() {
                // The detector is gone.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fails(outage: &OutageDetector) -> bool {
        let pending = std::future::pending::<Result<()>>();
        let outcome = tokio::time::timeout(OUTAGE_GRACE * 2, outage.or_outage(pending)).await;
        matches!(outcome, Ok(Err(Error::DatabaseUnavailable(_))))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_fail_once_the_outage_exceeds_the_grace_period_until_it_is_over() {
        let outage = OutageDetector::default();
        assert!(!fails(&outage).await);
        outage.mark_started();
        let started = Instant::now();
        assert!(fails(&outage).await);
        assert_eq!(started.elapsed(), OUTAGE_GRACE);
        // Later calls fail at once, and further reports do not restart the grace period.
        outage.mark_started();
        let started = Instant::now();
        assert!(fails(&outage).await);
        assert_eq!(started.elapsed(), Duration::ZERO);
        outage.mark_over();
        assert!(!fails(&outage).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_known() {
        let outage = OutageDetector::default();
        tokio::time::advance(OUTAGE_GRACE).await;
        let before = Instant::now();
        assert!(!outage.has_answered_since(before));
        tokio::time::advance(OUTAGE_GRACE).await;
        outage.mark_over();
        assert!(outage.has_answered_since(before));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_known() {
        let outage = OutageDetector::default();
        tokio::time::advance(OUTAGE_GRACE).await;
        let before = Instant::now();
        assert!(!outage.has_failed_since(before));
        tokio::time::advance(OUTAGE_GRACE).await;
        outage.note_failure();
        outage.mark_over();
        assert!(outage.has_failed_since(before));
        tokio::time::advance(OUTAGE_GRACE).await;
        assert!(!outage.has_failed_since(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_done_succeeds_during_an_outage() {
        let outage = OutageDetector::default();
        outage.mark_started();
        tokio::time::advance(OUTAGE_GRACE * 2).await;
        assert_eq!(outage.or_outage(async { Ok(7) }).await.ok(), Some(7));
    }
}
