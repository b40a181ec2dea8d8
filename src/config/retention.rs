//! Settings of retention.

use std::time::Duration;

use clap::Args;

use super::setting::{ConfigErrors, Number, Seconds, take};
use crate::ops::retention::model::{MAX_AGE, RetentionDefaults};

/// A day in seconds.
const DAY: i64 = 24 * 3600;

/// A number of days, 0 for an unlimited time.
type Days = Number<0, { (MAX_AGE / DAY) as u64 }>;

/// How long rows are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionSettings {
    /// Keep ended workflows and their steps for this many days; 0 keeps them indefinitely.
    /// SetRetentionPolicy overrides this and the next three flags for a namespace.
    #[arg(long, env = "BRIDGEBOOK_RETAIN_WORKFLOWS", value_name = "DAYS", default_value = "0")]
    retain_workflows: Days,

    /// Keep rows of the journal for this many days; 0 keeps them indefinitely.
    #[arg(
        long,
        env = "BRIDGEBOOK_RETAIN_TRANSITIONS",
        value_name = "DAYS",
        default_value = "0"
    )]
    retain_transitions: Days,

    /// Remember the batches of bridges for this many days; 0 remembers them indefinitely. A batch
    /// that is sent again later is added a second time.
    #[arg(long, env = "BRIDGEBOOK_RETAIN_BATCHES", value_name = "DAYS", default_value = "0")]
    retain_batches: Days,

    /// Keep stamps for this many days; 0 keeps them indefinitely.
    #[arg(long, env = "BRIDGEBOOK_RETAIN_STAMPS", value_name = "DAYS", default_value = "0")]
    retain_stamps: Days,
}

/// How often expired rows are removed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention")]
pub struct PruneSettings {
    /// Remove expired rows at this interval, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_PRUNE_INTERVAL",
        value_name = "SECONDS",
        default_value = "60"
    )]
    prune_interval: Seconds,
}

impl RetentionSettings {
    /// Checks the settings. The value is a placeholder if an error is noted.
    pub fn check(&self, errors: &mut ConfigErrors) -> RetentionDefaults {
        let age = |days: i64| (days > 0).then_some(days * DAY);
        RetentionDefaults {
            workflows: age(take!(errors, self.retain_workflows)),
            transitions: age(take!(errors, self.retain_transitions)),
            batches: age(take!(errors, self.retain_batches)),
            stamps: age(take!(errors, self.retain_stamps)),
        }
    }
}

impl PruneSettings {
    /// Checks the settings. The value is a placeholder if an error is noted.
    pub(super) fn check(&self, errors: &mut ConfigErrors) -> Duration {
        take!(errors, self.prune_interval)
    }
}
