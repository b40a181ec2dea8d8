//! The command line, after `--`.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::measured::Window;

/// Compares bridgebook with pgbench on a temporary PostgreSQL.
///
/// With --against, compares this build with another build of bridgebook instead.
#[derive(Debug, Parser)]
#[command(name = "vs_sql")]
pub struct Options {
    /// Duration of each measurement, in seconds.
    #[arg(long, env = "VS_SQL_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Duration of the warm-up before each measurement, in seconds. 1 is long enough for 64
    /// PostgreSQL sessions to fill their caches and to prepare their statement.
    #[arg(long, env = "VS_SQL_WARM_UP", default_value_t = 1)]
    warm_up: u64,

    /// Number of rounds. The tables show the medians.
    #[arg(long, env = "VS_SQL_ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,

    /// Comma-separated list of what to measure. Default: everything but tenants, guard and prune.
    #[arg(long, env = "VS_SQL_ONLY", value_delimiter = ',')]
    only: Vec<Subject>,

    /// Path of another build's `bridgebook` program, for example of the commit before a
    /// change. Both builds run on one database and are measured in turns. The table shows
    /// the ratio of this build to that one. Measures RPCs only: not pages, boot, guard and
    /// prune. The other build must be able to run on this build's schema.
    #[arg(long, env = "VS_SQL_AGAINST", value_name = "PATH")]
    pub against: Option<PathBuf>,

    /// Number of old journal rows to prune, for --only prune.
    #[arg(long, env = "VS_SQL_OLD_ROWS", default_value_t = 1_000_000)]
    pub old_rows: u64,

    /// Ignored; cargo passes it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// StartWorkflow.
    Start,
    /// GetWorkflow with five steps.
    Get,
    /// TransitionWorkflow.
    Transition,
    /// BatchRecordSteps, 1000 steps per call.
    Steps,
    /// RecordTransition, spread over 20000 entities.
    Record,
    /// RecordTransition with contention: 4 entities.
    RecordHot,
    /// AccumulateBridgeState, spread over 16 bridges.
    Accumulate,
    /// Heartbeat of one of 10000 nodes.
    Heartbeat,
    /// BatchHeartbeat, 1000 nodes per call.
    BatchHeartbeat,
    /// DiscoverNodes, 20 nodes per call.
    Discover,
    /// StartWorkflow in 32 and in 1000 tenants. Only if named, and only with --against.
    Tenants,
    /// ListTransitions: the first page of a long list against a late one.
    Pages,
    /// Startup time of `bridgebook serve` on an existing private cluster.
    Boot,
    /// Cost of tokens and limits, measured with some of the RPCs. Only if named.
    Guard,
    /// Cost to callers while a million old rows are pruned. Only if named.
    Prune,
}

impl Options {
    /// Returns whether to measure `subject`.
    pub fn wants(&self, subject: Subject) -> bool {
        match self.only.as_slice() {
            [] => !matches!(subject, Subject::Tenants | Subject::Guard | Subject::Prune),
            only => only.contains(&subject),
        }
    }

    /// Returns the window of a measurement.
    pub fn window(&self) -> Window {
        Window {
            warm_up: Duration::from_secs(self.warm_up),
            counted: Duration::from_secs(self.seconds),
        }
    }
}
