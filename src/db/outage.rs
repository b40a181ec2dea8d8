//! The outage detector: calls fail fast during an outage of the database, instead of each
//! waiting until its deadline.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::DbError;
use crate::domain::error::{Error, Result};

/// How long calls wait for an unavailable database. A restart takes a second or two. After
/// that they fail, and callers decide how long they retry.
pub(super) const OUTAGE_GRACE: Duration = Duration::from_secs(2);

/// Knows since when the database has been unavailable: the health check fails, and no other
/// statement has succeeded since. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutageDetector(Arc<watch::Sender<Option<Instant>>>);

impl Default for OutageDetector {
    fn default() -> Self {
        OutageDetector(Arc::new(watch::Sender::new(None)))
    }
}

impl OutageDetector {
    /// Notes that the database did not answer.
    pub fn mark_started(&self) {
        self.0.send_if_modified(|since| {
            let is_new = since.is_none();
            since.get_or_insert_with(Instant::now);
            is_new
        });
    }

    /// Notes that the database answered.
    pub fn mark_over(&self) {
        // A read lock is cheaper than a write lock, and outages are rare.
        if self.0.borrow().is_some() {
            self.0.send_replace(None);
        }
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
        let mut since = self.0.subscribe();
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
    async fn work_that_is_done_succeeds_during_an_outage() {
        let outage = OutageDetector::default();
        outage.mark_started();
        tokio::time::advance(OUTAGE_GRACE * 2).await;
        assert_eq!(outage.or_outage(async { Ok(7) }).await.ok(), Some(7));
    }
}
