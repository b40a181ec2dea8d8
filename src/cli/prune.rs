//! `bridgebook prune`: what retention does by itself, now and to its end.

use std::io::Write;

use clap::Args;

use super::CliError;
use crate::{
    config::{DatabaseSettings, DatabaseSource, RetentionSettings},
    db::Database,
    ops::{
        metrics::Metrics,
        retention::{
            model::{RetentionDefaults, Table},
            pruner::Pruner,
            store::ExpiredGroup,
        },
    },
};

/// How many connections it takes: the fewest that there may be.
const CONNECTIONS: u32 = 2;

#[derive(Debug, Args)]
pub(super) struct PruneCommand {
    /// Only count what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    retention: RetentionSettings,
    #[command(flatten)]
    database: DatabaseSettings,
}

impl PruneCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut faults = Vec::new();
        let defaults = self.retention.check(&mut faults);
        if !faults.is_empty() {
            return Err(faults.into());
        }
        let database = self.database.check()?;
        if let DatabaseSource::Embedded(data_dir) = &database {
            super::require_cluster(data_dir)?;
        }
        super::on_live_database(database, async |url| {
            prune(url, defaults, self.dry_run).await
        })
        .await
    }
}

async fn prune(url: &str, defaults: RetentionDefaults, dry_run: bool) -> Result<(), CliError> {
    let metrics = Metrics::new()?;
    let database = Database::new(url, CONNECTIONS, &metrics);
    database.mark_ready();
    let pruner = Pruner { database, defaults };
    let mut is_kept_for_ever = true;
    for table in Table::ALL {
        let groups = pruner.groups(*table).await;
        for old in groups.map_err(refused)? {
            is_kept_for_ever = false;
            prune_group(&pruner, &old, dry_run).await?;
        }
    }
    if is_kept_for_ever {
        let hint = "no rows get too old: --retain-… and AdminService say how old they get";
        writeln!(std::io::stdout(), "{hint}")?;
    }
    Ok(())
}

async fn prune_group(pruner: &Pruner, old: &ExpiredGroup, dry_run: bool) -> Result<(), CliError> {
    let rows = pruner.count(old).await.map_err(refused)?;
    let mut removed = 0;
    if !dry_run {
        let outcome = pruner.remove(old, |count| removed += count).await;
        outcome.map_err(refused)?;
    }
    let group = &old.group;
    let age = for_people(old.max_age_seconds as f64);
    let oldest = for_people(rows.oldest_seconds.unwrap_or_default());
    let (count, done) = match dry_run {
        true => (rows.count, "to remove"),
        false => (removed, "removed"),
    };
    Ok(writeln!(
        std::io::stdout(),
        "{:20} {} {} {count} {done}, older than {age}; the oldest has {oldest}",
        old.table.as_str(),
        group.namespace,
        group.part,
    )?)
}

/// A time of so many seconds, in what it is best told in.
fn for_people(seconds: f64) -> String {
    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;
    match seconds {
        days if days >= DAY => format!("{:.1} days", days / DAY),
        hours => format!("{:.1} hours", hours / HOUR),
    }
}

fn refused(error: crate::domain::error::Error) -> CliError {
    CliError::Refused(Box::new(error))
}
