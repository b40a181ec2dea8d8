//! The settings of retention.

use std::time::Duration;

use clap::Args;

use super::{MAX_SECONDS, number};
use crate::ops::retention::model::{MAX_AGE, RetentionDefaults};

/// How long rows are kept, as it is given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionSettings {
    /// For how many days workflows are kept after they have ended, with their steps;
    /// 0 for ever. AdminService can say otherwise for a namespace, of this and the next three.
    #[arg(
        long,
        env = "BRIDGEBOOK_RETAIN_WORKFLOWS",
        value_name = "DAYS",
        default_value = "0"
    )]
    retain_workflows: String,

    /// For how many days rows of the journal are kept; 0 for ever.
    #[arg(
        long,
        env = "BRIDGEBOOK_RETAIN_TRANSITIONS",
        value_name = "DAYS",
        default_value = "0"
    )]
    retain_transitions: String,

    /// For how many days it is kept which batches bridges have seen; 0 for ever. A batch
    /// that is sent again after that is added again.
    #[arg(
        long,
        env = "BRIDGEBOOK_RETAIN_BATCHES",
        value_name = "DAYS",
        default_value = "0"
    )]
    retain_batches: String,

    /// For how many days stamps are kept; 0 for ever.
    #[arg(
        long,
        env = "BRIDGEBOOK_RETAIN_STAMPS",
        value_name = "DAYS",
        default_value = "0"
    )]
    retain_stamps: String,
}

/// How often to prune, as it is given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention")]
pub struct PruneSettings {
    /// How often to look for rows that are older than they get, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_PRUNE_INTERVAL",
        value_name = "SECONDS",
        default_value = "60"
    )]
    prune_interval: String,
}

/// A day, in seconds.
const DAY: i64 = 24 * 3600;

impl RetentionSettings {
    /// Checks them; notes all faults.
    pub fn check(&self, faults: &mut Vec<String>) -> RetentionDefaults {
        let mut age = |flag: &str, text: &str| {
            let most = u64::try_from(MAX_AGE / DAY).unwrap_or(u64::MAX);
            let days = number(faults, flag, text, 0..=most);
            let days = i64::try_from(days).unwrap_or_default();
            (days > 0).then_some(days * DAY)
        };
        RetentionDefaults {
            workflows: age("--retain-workflows", &self.retain_workflows),
            transitions: age("--retain-transitions", &self.retain_transitions),
            batches: age("--retain-batches", &self.retain_batches),
            stamps: age("--retain-stamps", &self.retain_stamps),
        }
    }
}

impl PruneSettings {
    /// Checks them; notes all faults.
    pub(super) fn check(&self, faults: &mut Vec<String>) -> Duration {
        let seconds = number(
            faults,
            "--prune-interval",
            &self.prune_interval,
            1..=MAX_SECONDS,
        );
        Duration::from_secs(seconds)
    }
}
