//! What can be said on the command line, after `--`.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Compares bridgebook with pgbench on a PostgreSQL of its own.
#[derive(Debug, Parser)]
#[command(name = "vs_sql")]
pub struct Options {
    /// For how many seconds each measurement counts.
    #[arg(long, env = "VS_SQL_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// How many rounds of measurements there are; the medians are shown.
    #[arg(long, env = "VS_SQL_ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,

    /// What to measure. Default: everything.
    #[arg(long, env = "VS_SQL_ONLY", value_delimiter = ',')]
    only: Vec<Subject>,

    /// Cargo passes it to every benchmark.
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
    /// BatchRecordSteps.
    Steps,
    /// RecordTransition, of 20000 entities.
    Record,
    /// RecordTransition, of 4 entities.
    RecordHot,
    /// AccumulateBridgeState, of 16 bridges.
    Accumulate,
    /// Heartbeat.
    Heartbeat,
    /// BatchHeartbeat.
    BatchHeartbeat,
    /// DiscoverNodes.
    Discover,
    /// ListTransitions, the first page against a late one.
    Pages,
    /// How long `bridgebook serve` takes until it serves an existing cluster.
    Boot,
    /// Some of the calls with tokens and limits, and without. Only if it is named.
    Guard,
    /// Some of the calls while old rows are removed, and while not. Only if it is named.
    Prune,
}

impl Options {
    /// Whether to measure `subject`.
    pub fn wants(&self, subject: Subject) -> bool {
        match self.only.as_slice() {
            [] => !matches!(subject, Subject::Guard | Subject::Prune),
            only => only.contains(&subject),
        }
    }

    /// When to count.
    pub fn window(&self) -> Window {
        /// Long enough for 64 sessions of PostgreSQL to fill their caches and
        /// to prepare their statement.
        const WARM_UP: Duration = Duration::from_secs(1);
        Window {
            warm_up: WARM_UP,
            counted: Duration::from_secs(self.seconds),
        }
    }
}

/// The part of a measurement that counts, the same for both sides.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// What goes before it.
    pub warm_up: Duration,
    /// How long it is.
    pub counted: Duration,
}
