//! The command line, after `--`.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::measured::Window;

/// Measures the streams of WatchTransitions on a temporary PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "watch")]
pub struct Options {
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Number of rounds of catch_up and cost. Their tables show the medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Comma-separated list of what to measure. Default: everything.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Transitions per second that the writers of lag and many try to make.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Transitions per call of these writers; 1 for RecordTransition.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub batch: u64,
    /// Number of watchers of lag, cost and idle.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub watchers: u64,
    /// Number of namespaces of many, of its connections, and of the watchers of each of them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=250))]
    pub many: u64,
    /// Number of rows of the journal of catch_up.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub journal: u64,
    /// Ignored; cargo passes it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// From a writer's response to the watchers' receipt, with watchers that want every row.
    Lag,
    /// The same with 10,000 watchers, and the memory of each.
    Many,
    /// A watcher that reads an old journal.
    CatchUp,
    /// What writers lose by the index of the feed, and by watchers.
    Cost,
    /// What watchers cost while nothing is written.
    Idle,
}

impl Options {
    /// Returns whether to measure `subject`.
    pub fn wants(&self, subject: Subject) -> bool {
        self.only.is_empty() || self.only.contains(&subject)
    }

    /// Returns the duration of a measurement.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Returns the window of a measurement of writers. A part of it is the warm-up, so that the
    /// shortest run warms up briefly.
    pub fn window(&self) -> Window {
        Window {
            warm_up: self.duration() / 5,
            counted: self.duration(),
        }
    }
}
