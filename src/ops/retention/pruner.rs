//! Removes rows that are older than they get.

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

/// After each statement it rests for so many times as long as that took, so that it
/// takes no more than a fifth of the time, however slow the database is.
const REST: u32 = 4;

/// Removes what is too old, again and again. All replicas may do it: each takes rows
/// that no other is removing.
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
                Ok(()) => progress.has_none_older(begun),
                // The health says so already, and the next pass finds the same rows.
                Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                    tracing::debug!(cause = error_chain(&error), "no pruning this time");
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

/// Knows what is too old.
pub struct Pruner {
    /// Where.
    pub database: Database,
    /// What holds where nothing else was said.
    pub defaults: RetentionDefaults,
}

impl Pruner {
    /// The groups of a table whose rows do not get any age.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn groups(&self, table: Table) -> Result<Vec<ExpiredGroup>> {
        let default = self.defaults.of(table);
        let groups = self.database.run(&PruneTargets(table)).await?.into_iter();
        let old = groups.filter_map(|group| {
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
        Ok(old.collect())
    }

    /// Counts the rows of a group that are too old.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count(&self, old: &ExpiredGroup) -> Result<ExpiredRows> {
        self.database.run(&CountExpired(old)).await
    }

    /// Removes the rows of a group that are too old; `removed` hears of each few.
    ///
    /// # Errors
    /// Those of the database; what was removed by then is gone.
    pub async fn remove(&self, old: &ExpiredGroup, mut removed: impl FnMut(i64)) -> Result<()> {
        loop {
            let begun = Instant::now();
            let count = self.database.run(&PruneRows(old)).await?;
            removed(count);
            if !PruneRows::may_leave_some(count) {
                return Ok(());
            }
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
    }

    async fn prune(&self, progress: &Progress) -> Result<()> {
        for old in self.groups(progress.table).await? {
            self.remove(&old, |count| progress.removed(count)).await?;
        }
        Ok(())
    }
}

/// How far it has come with a table.
struct Progress {
    table: Table,
    rows: IntCounter,
    /// When a pass began that left nothing that was too old.
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

    fn has_none_older(&self, begun: Instant) {
        let since = self.clean_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner) = begun;
    }
}
