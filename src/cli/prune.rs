//! `bridgebook prune`: removes or counts expired rows of all namespaces.

use std::io::Write;

use clap::Args;

use super::{CliError, database};
use crate::{
    config::{ConfigErrors, DatabaseSettings, RetentionSettings},
    db::{Database, DatabaseAddress},
    domain::error::{Error, Result},
    ops::{
        metrics::Metrics,
        retention::{
            model::{RetentionDefaults, Table},
            pruner::{Pruner, log_skipped},
            removal::{Removal, Step, kept_error},
            store::ExpiredGroup,
        },
    },
    util::error_chain::error_chain,
};

/// The connections of the pool: the smallest number that it accepts.
const CONNECTIONS: u32 = 2;

#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct PruneCommand {
    /// Count expired rows without removing them.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    retention: RetentionSettings,
    #[command(flatten)]
    database: DatabaseSettings,
}

impl PruneCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut errors = ConfigErrors::default();
        let defaults = self.retention.check(&mut errors);
        let database = self.database.check(&mut errors);
        let (defaults, database) = errors.finish((defaults, database))?;
        let work = async |address: &DatabaseAddress| prune(address, defaults, self.dry_run).await;
        database::on_current_database(database, work).await
    }
}

async fn prune(
    address: &DatabaseAddress,
    defaults: RetentionDefaults,
    dry_run: bool,
) -> Result<(), CliError> {
    let metrics = Metrics::new()?;
    let database = Database::new(address, CONNECTIONS, &metrics);
    database.mark_ready();
    let pruner = Pruner::new(database, defaults);
    let mut has_targets = false;
    let mut failure = None;
    for table in Table::ALL {
        let groups = pruner.groups(*table).await;
        for expired in groups? {
            let mut removal = Removal::of(expired);
            match prune_group(&pruner, &mut removal, dry_run).await {
                Ok((is_reported, skipped)) => {
                    has_targets |= is_reported;
                    failure = skipped.map(CliError::from).or(failure);
                }
                // The other groups are independent of this one.
                Err(error @ (CliError::Rejected(_) | CliError::Failed(_))) => {
                    let group = &removal.expired.group;
                    tracing::error!(
                        table = table.as_str(),
                        namespace = group.namespace,
                        part = group.part,
                        cause = error_chain(&error),
                        "pruning failed"
                    );
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    if !has_targets {
        let hint = "nothing to remove: no stored rows have a retention; set --retain-… or call SetRetentionPolicy";
        writeln!(std::io::stdout(), "{hint}")?;
    }
    Ok(())
}

/// Removes or counts the expired rows of a group, and reports the number, also if the removal of others
/// fails. Says nothing about deleted rows if there are none. Returns whether it has reported the group,
/// and the error of a row that it could not remove.
async fn prune_group(
    pruner: &Pruner,
    removal: &mut Removal,
    dry_run: bool,
) -> Result<(bool, Option<Error>), CliError> {
    let rows = pruner.count(&removal.expired).await?;
    let mut removed = 0;
    let outcome = match dry_run {
        true => Ok(None),
        false => remove_all(pruner, removal, &mut removed).await,
    };
    let expired = &removal.expired;
    let (count, done) = match dry_run {
        true => (rows.count, "to remove"),
        false => (removed, "removed"),
    };
    let is_reported = count > 0 || !expired.is_deleted();
    if is_reported {
        let oldest = rows.oldest_seconds.unwrap_or_default();
        let line = report(expired, &format!("{count} {done}"), oldest);
        writeln!(std::io::stdout(), "{:20} {line}", expired.table.as_str())?;
    }
    Ok((is_reported, outcome?))
}

/// Removes the expired rows of a group, and counts them in `removed`. Returns the error of the last row
/// that it could not remove. Logs each of these that fails, and one of those that a step only keeps.
async fn remove_all(
    pruner: &Pruner,
    removal: &mut Removal,
    removed: &mut i64,
) -> Result<Option<Error>> {
    let mut skipped = None;
    loop {
        match pruner.remove_some(removal).await? {
            Step::Removed(pruned) => {
                *removed += pruned.removed;
                if pruned.kept > 0 {
                    skipped = Some(report_skipped(pruner, removal, kept_error()).await);
                }
                if !pruned.may_leave_some {
                    return Ok(skipped);
                }
            }
            Step::Failed => {}
            Step::Skipped(error) => {
                skipped = Some(report_skipped(pruner, removal, error).await);
            }
        }
    }
}

/// Logs the row that a removal has passed over last. Returns the error.
async fn report_skipped(pruner: &Pruner, removal: &Removal, error: Error) -> Error {
    let row = pruner.skipped_row(removal).await;
    log_skipped(&removal.expired, row.as_deref(), &error);
    error
}

/// Returns the line about a group, without the table.
fn report(expired: &ExpiredGroup, done: &str, oldest_seconds: f64) -> String {
    if expired.is_deleted() {
        let what = match expired.table {
            Table::Batches => "of bridges that callers have deleted",
            Table::Workflows | Table::Transitions | Table::Stamps => {
                "deleted by callers, or expired, with many steps or stamps"
            }
        };
        return format!("{done}, {what}");
    }
    let group = &expired.group;
    let age = format_age(expired.max_age_seconds as f64);
    let oldest = format_age(oldest_seconds);
    let (namespace, part) = (&group.namespace, &group.part);
    format!("{namespace} {part} {done}, older than {age}; the oldest is {oldest} old")
}

/// Formats a duration in days, or in hours if it is shorter than a day.
fn format_age(seconds: f64) -> String {
    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;
    match seconds {
        days if days >= DAY => format!("{:.1} days", days / DAY),
        hours => format!("{:.1} hours", hours / HOUR),
    }
}
