//! The pruner: removes expired rows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{Counter, IntCounter};

use super::{
    model::{RetentionDefaults, Table},
    removal::{Removal, Step, kept_error},
    store::{CountExpired, ExpiredGroup, ExpiredRows, PruneRows, PruneTargets, Pruned, RowName},
};
use crate::{
    db::{Database, Query},
    domain::{
        error::{Error, Result},
        namespace::Namespace,
    },
    ops::metrics::Metrics,
};

/// The pause after each statement, as a multiple of its duration. Pruning thus occupies at most a
/// fifth of the time of one connection, however slow the database is.
const PAUSE_FACTOR: u32 = 4;

/// How long a pass goes on removing a backlog. The next pass begins at once and reads the
/// policies again, so a change of a policy takes effect before the backlog is gone.
const LONGEST_PASS: Duration = Duration::from_secs(60);

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
    let pruner = Pruner::new(database, defaults);
    loop {
        tokio::time::sleep(interval).await;
        while pruner.prune_all(&progress).await == Pass::HasBacklog {}
    }
}

/// The outcome of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// No expired rows remain.
    Clean,
    /// A statement failed. The pass after the next interval tries again.
    Failed,
    /// Expired rows remain after [`LONGEST_PASS`]. The next pass begins at once.
    HasBacklog,
}

/// What the steps of a pass have achieved so far.
#[derive(Default)]
struct Achievement {
    /// Whether the pass leaves a row or a group for the next one.
    leaves_some: bool,
    /// Whether it has removed something since its last failure.
    has_removed: bool,
}

impl Achievement {
    fn removed(&mut self, pruned: &Pruned) {
        if pruned.kept > 0 {
            self.left();
        }
        // A step that takes a part of a large workflow or bridge counts no rows.
        let takes_part = pruned.may_leave_some && pruned.kept == 0;
        self.has_removed |= pruned.removed > 0 || takes_part;
    }

    /// Notes that a step failed, which a smaller one may still make up for.
    fn failed(&mut self) {
        self.has_removed = false;
    }

    /// Notes that a row or a group is left for the next pass.
    fn left(&mut self) {
        self.has_removed = false;
        self.leaves_some = true;
    }

    /// Returns the outcome of a pass that went on for [`LONGEST_PASS`]. After failures alone, another
    /// pass would fail in the same way, so it does not begin at once.
    fn at_limit(&self) -> Pass {
        match self.has_removed {
            true => Pass::HasBacklog,
            false => Pass::Failed,
        }
    }

    /// Returns the outcome of a pass that has been through all groups.
    fn at_end(&self) -> Pass {
        match self.leaves_some {
            true => Pass::Failed,
            false => Pass::Clean,
        }
    }
}

/// Waits for work, rests for [`PAUSE_FACTOR`] times as long, and then counts the time of the work.
async fn and_rest<T>(busy: &Counter, work: impl Future<Output = T>) -> T {
    // tokio's clock, which tests can pause.
    let begun = tokio::time::Instant::now();
    let answer = work.await;
    let time = begun.elapsed();
    tokio::time::sleep(time * PAUSE_FACTOR).await;
    busy.inc_by(time.as_secs_f64());
    answer
}

/// Finds and removes expired rows.
pub struct Pruner {
    database: Database,
    defaults: RetentionDefaults,
    busy: Counter,
}

impl Pruner {
    /// Creates a pruner. `defaults` tells how long rows are kept in namespaces without a policy.
    #[must_use]
    pub fn new(database: Database, defaults: RetentionDefaults) -> Self {
        let busy = database.metrics().retention_busy().clone();
        Pruner {
            database,
            defaults,
            busy,
        }
    }

    /// Returns the groups of a table whose rows can expire. The group of deleted rows is the last
    /// one, because large rows of the others move there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn groups(&self, table: Table) -> Result<Vec<ExpiredGroup>> {
        let default = self.defaults.of(table);
        let groups = self.run_and_rest(&PruneTargets(table)).await?.into_iter();
        let groups = groups.filter(|group| !Namespace::is_deleted(&group.namespace));
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
        Ok(expired.chain(ExpiredGroup::deleted(table)).collect())
    }

    /// Counts the expired rows of a group.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count(&self, expired: &ExpiredGroup) -> Result<ExpiredRows> {
        self.database.run(&CountExpired(expired)).await
    }

    /// Makes a step of a removal, and rests.
    ///
    /// # Errors
    /// Those of the database, unless one row may be at fault.
    pub async fn remove_some(&self, removal: &mut Removal) -> Result<Step> {
        let statement = PruneRows {
            expired: &removal.expired,
            rows: removal.rows,
            skipped: removal.skipped,
        };
        let outcome = self.run_and_rest(&statement).await;
        removal.take(outcome)
    }

    /// Returns the key of the row that a removal has passed over last, if it is still there.
    pub async fn skipped_row(&self, removal: &Removal) -> Option<String> {
        let name = RowName {
            expired: &removal.expired,
            skipped: removal.skipped - 1,
        };
        self.run_and_rest(&name).await.ok().flatten()
    }

    /// Runs a query, and rests.
    async fn run_and_rest<Q: Query>(&self, query: &Q) -> Result<Q::Answer> {
        and_rest(&self.busy, self.database.run(query)).await
    }

    /// Makes a pass over all tables.
    async fn prune_all(&self, progress: &[Progress]) -> Pass {
        let mut outcome = Pass::Clean;
        for progress in progress {
            let begun = Instant::now();
            match self.prune(progress).await {
                Ok(Pass::Clean) => progress.set_clean_since(begun),
                Ok(Pass::HasBacklog) => outcome = Pass::HasBacklog,
                Ok(Pass::Failed) => {}
                // Health logs the cause, and the next pass finds the same rows.
                Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                    tracing::debug!(cause = error.causes(), "pruning skipped");
                    return Pass::Failed;
                }
                Err(error) => progress.failed(None, &error),
            }
        }
        outcome
    }

    /// Makes a pass over a table: one step for each group in turn, so that no group waits
    /// for the backlog of another. A group that fails is left for the next pass.
    async fn prune(&self, progress: &Progress) -> Result<Pass> {
        let groups = self.groups(progress.table).await?.into_iter();
        let mut groups: Vec<_> = groups.map(Removal::of).collect();
        let begun = Instant::now();
        let mut achievement = Achievement::default();
        while !groups.is_empty() {
            if begun.elapsed() > LONGEST_PASS {
                return Ok(achievement.at_limit());
            }
            let mut remaining = Vec::new();
            for mut removal in groups {
                match self.remove_some(&mut removal).await {
                    Ok(Step::Removed(pruned)) => {
                        progress.removed(pruned.removed);
                        achievement.removed(&pruned);
                        self.skipped(progress, &removal, pruned.kept, &kept_error())
                            .await;
                        remaining.extend(pruned.may_leave_some.then_some(removal));
                    }
                    Ok(Step::Failed) => {
                        achievement.failed();
                        remaining.push(removal);
                    }
                    Ok(Step::Skipped(error)) => {
                        self.skipped(progress, &removal, 1, &error).await;
                        achievement.left();
                        remaining.push(removal);
                    }
                    Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                        return Err(error);
                    }
                    Err(error) => {
                        progress.failed(Some(&removal.expired), &error);
                        achievement.left();
                    }
                }
            }
            groups = remaining;
        }
        Ok(achievement.at_end())
    }

    /// Counts the rows that a step could not remove. Logs one of the first ones of each group and pass.
    async fn skipped(&self, progress: &Progress, removal: &Removal, rows: i64, error: &Error) {
        progress
            .failures
            .inc_by(u64::try_from(rows).unwrap_or_default());
        if rows > 0 && removal.skipped == rows {
            let row = self.skipped_row(removal).await;
            log_skipped(&removal.expired, row.as_deref(), error);
        }
    }
}

/// Logs a row that cannot be removed.
pub fn log_skipped(expired: &ExpiredGroup, row: Option<&str>, error: &Error) {
    let group = &expired.group;
    tracing::error!(
        table = expired.table.as_str(),
        namespace = group.namespace,
        part = Some(group.part.as_str()).filter(|it| !it.is_empty()),
        row,
        cause = error.causes(),
        "an expired row cannot be removed, so pruning goes on with others"
    );
}

/// The progress with one table.
struct Progress {
    table: Table,
    rows: IntCounter,
    failures: IntCounter,
    /// The begin of the last pass that removed all expired rows.
    clean_since: Arc<Mutex<Instant>>,
}

impl Progress {
    fn of(table: Table, metrics: &Metrics) -> Self {
        let (rows, failures, lag) = metrics.retention(table.as_str());
        let clean_since = Arc::new(Mutex::new(Instant::now()));
        let since = Arc::clone(&clean_since);
        metrics.on_scrape(move || {
            let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
            lag.set(since.elapsed().as_secs_f64());
        });
        Progress {
            table,
            rows,
            failures,
            clean_since,
        }
    }

    fn removed(&self, count: i64) {
        self.rows.inc_by(u64::try_from(count).unwrap_or_default());
    }

    fn failed(&self, expired: Option<&ExpiredGroup>, error: &Error) {
        self.failures.inc();
        let group = expired.map(|it| &it.group);
        tracing::error!(
            table = self.table.as_str(),
            namespace = group.map(|it| it.namespace.as_str()),
            part = group.map(|it| it.part.as_str()).filter(|it| !it.is_empty()),
            cause = error.causes(),
            "pruning failed"
        );
    }

    fn set_clean_since(&self, begun: Instant) {
        let since = self.clean_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner) = begun;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_only_fails_does_not_begin_again_at_once() {
        let mut achievement = Achievement::default();
        assert_eq!(achievement.at_limit(), Pass::Failed);
        let pruned = |removed, may_leave_some| Pruned {
            removed,
            may_leave_some,
            kept: 0,
        };
        for step in [pruned(1, false), pruned(0, true)] {
            achievement.removed(&step);
            assert_eq!(achievement.at_limit(), Pass::HasBacklog);
            achievement.failed();
            achievement.removed(&pruned(0, false));
            assert_eq!(achievement.at_limit(), Pass::Failed);
            assert_eq!(achievement.at_end(), Pass::Clean);
        }
        achievement.left();
        achievement.removed(&pruned(1, true));
        assert_eq!(achievement.at_limit(), Pass::HasBacklog);
        assert_eq!(achievement.at_end(), Pass::Failed);
    }

    #[test]
    fn rows_that_are_kept_without_an_error_are_no_progress() {
        let mut achievement = Achievement::default();
        let pruned = |removed| Pruned {
            removed,
            may_leave_some: true,
            kept: 1,
        };
        achievement.removed(&pruned(0));
        assert_eq!(achievement.at_limit(), Pass::Failed);
        achievement.removed(&pruned(1));
        assert_eq!(achievement.at_limit(), Pass::HasBacklog);
        assert_eq!(achievement.at_end(), Pass::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn work_takes_a_fifth_of_the_time() {
        let busy = Counter::new("busy", "Busy.").unwrap();
        let begun = tokio::time::Instant::now();
        let work = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            "done"
        };
        assert_eq!(and_rest(&busy, work).await, "done");
        assert!(busy.get() >= 1.0);
        assert!(begun.elapsed().as_secs_f64() >= busy.get() * 5.0);
    }
}
