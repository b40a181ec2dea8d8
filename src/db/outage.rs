//! What is known of the database being away, so that callers need not find it out
//! one by one, each until its deadline.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::DbError;
use crate::domain::error::{Error, Result};

/// For how long a database that is away is waited for: a restart takes a second
/// or two. After that callers are told, who know how much patience they have.
pub(super) const OUTAGE_GRACE: Duration = Duration::from_secs(2);

/// Since when the database is away: it does not answer the health's question, and
/// has answered nobody else since. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutageDetector(Arc<watch::Sender<Option<Instant>>>);

impl Default for OutageDetector {
    fn default() -> Self {
        OutageDetector(Arc::new(watch::Sender::new(None)))
    }
}

impl OutageDetector {
    /// Notes that it did not answer.
    pub fn mark_started(&self) {
        self.0.send_if_modified(|since| {
            let is_new = since.is_none();
            since.get_or_insert_with(Instant::now);
            is_new
        });
    }

    /// Notes that it answered.
    pub fn mark_over(&self) {
        // Hardly ever, and a look costs less than a change.
        if self.0.borrow().is_some() {
            self.0.send_replace(None);
        }
    }

    /// Waits for `work`, but not for longer than until the database has been away
    /// for two seconds. What was asked of it by then may have been done.
    ///
    /// # Errors
    /// Those of the work, and [`Error::DatabaseUnavailable`].
    pub async fn or_outage<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.grace_expired() => Err(Error::from(DbError::Outage)),
        }
    }

    /// Ends when it has lasted for as long as anybody waits.
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
                // Nobody is left to say that it is over, or that it has begun.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_given_up(outage: &OutageDetector) -> bool {
        let forever = std::future::pending::<Result<()>>();
        let patience = OUTAGE_GRACE * 2;
        let outcome = tokio::time::timeout(patience, outage.or_outage(forever)).await;
        matches!(outcome, Ok(Err(Error::DatabaseUnavailable(_))))
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_told_when_it_has_lasted_and_not_once_it_is_over() {
        let outage = OutageDetector::default();
        assert!(!is_given_up(&outage).await);
        outage.mark_started();
        let told = Instant::now();
        assert!(is_given_up(&outage).await);
        assert_eq!(told.elapsed(), OUTAGE_GRACE);
        // Whoever comes later does not wait, and to hear it again changes nothing.
        outage.mark_started();
        let told = Instant::now();
        assert!(is_given_up(&outage).await);
        assert_eq!(told.elapsed(), Duration::ZERO);
        outage.mark_over();
        assert!(!is_given_up(&outage).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_is_answered_all_the_same() {
        let outage = OutageDetector::default();
        outage.mark_started();
        tokio::time::advance(OUTAGE_GRACE * 2).await;
        assert_eq!(outage.or_outage(async { Ok(7) }).await.ok(), Some(7));
    }
}
