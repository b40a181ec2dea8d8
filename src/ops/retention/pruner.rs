//! The pruner: removes expired rows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use super::{
    model::{RetentionDefaults, Table},
    store::{CountExpired, ExpiredGroup, ExpiredRows, PruneRows, PruneTargets},
};
use crate::{
    db::Database,
    domain::error::{Error, Result},
    ops::metrics::Metrics,
    util::error_chain::error_chain,
};

/// The pause after each statement, as a multiple of its duration. Pruning thus occupies at most a
/// fifth of the time of one connection, however slow the database is.
const PAUSE_FACTOR: u32 = 4;

/// Removes expired rows at an interval. Never returns. All replicas prune: each skips rows that
/// another one is removing.
pub async fn run(
    database: Database,
    defaults: RetentionDefaults,
    interval: Duration,
    metrics: &Metrics,
) {
    let progress = Table::ALL.iter().map(|table| Progress::of(*table, metrics));
    let progress: Vec<_> = progress.collect();
    let pruner = Pruner { database, defaults };
    loop {
        tokio::time::sleep(interval).await;
        for progress in &progress {
            let begun = Instant::now();
            match pruner.prune(progress).await {
                Ok(()) => progress.set_clean_since(begun),
                // Health logs the cause, and the next pass finds the same rows.
                Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                    tracing::debug!(cause = error_chain(&error), "pruning skipped");
                }
                Err(error) => tracing::error!(
                    table = progress.table.as_str(),
                    cause = error_chain(&error),
                    "pruning failed"
                ),
            }
        }
    }
}

/// Finds and removes expired rows.
pub struct Pruner {
    /// The database.
    pub database: Database,
    /// How long rows are kept in namespaces without a policy.
    pub defaults: RetentionDefaults,
}

impl Pruner {
    /// Returns the groups of a table whose rows can expire.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn groups(&self, table: Table) -> Result<Vec<ExpiredGroup>> {
        let default = self.defaults.of(table);
        let groups = self.database.run(&PruneTargets(table)).await?.into_iter();
        let expired = groups.filter_map(|group| {
            let max_age_seconds = match group.is_set {
                true => group.max_age_seconds,
                false => default,
            }?;
            Some(ExpiredGroup {
                table,
                group,
                max_age_seconds,
            })
        });
        Ok(expired.collect())
    }

    /// Counts the expired rows of a group.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count(&self, expired: &ExpiredGroup) -> Result<ExpiredRows> {
        self.database.run(&CountExpired(expired)).await
    }

    /// Removes the expired rows of a group. Passes the count of each statement to `removed`.
    ///
    /// # Errors
    /// Those of the database. Rows that were removed before the error stay removed.
    pub async fn remove(&self, expired: &ExpiredGroup, mut removed: impl FnMut(i64)) -> Result<()> {
        loop {
            let begun = Instant::now();
            let count = self.database.run(&PruneRows(expired)).await?;
            removed(count);
            if !PruneRows::may_leave_some(count) {
                return Ok(());
            }
            tokio::time::sleep(begun.elapsed() * PAUSE_FACTOR).await;
        }
    }

    async fn prune(&self, progress: &Progress) -> Result<()> {
        for expired in self.groups(progress.table).await? {
            self.remove(&expired, |count| progress.removed(count))
                .await?;
        }
        Ok(())
    }
}

/// The progress with one table.
struct Progress {
    table: Table,
    rows: IntCounter,
    /// The begin of the last pass that removed all expired rows.
    clean_since: Arc<Mutex<Instant>>,
}

impl Progress {
    fn of(table: Table, metrics: &Metrics) -> Self {
        let (rows, lag) = metrics.retention(table.as_str());
        let clean_since = Arc::new(Mutex::new(Instant::now()));
        let since = Arc::clone(&clean_since);
        metrics.on_scrape(move || {
            let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
            lag.set(since.elapsed().as_secs_f64());
        });
        Progress {
            table,
            rows,
            clean_since,
        }
    }

    fn removed(&self, count: i64) {
        self.rows.inc_by(u64::try_from(count).unwrap_or_default());
    }

    fn set_clean_since(&self, begun: Instant) {
        let since = self.clean_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner) = begun;
    }
}
