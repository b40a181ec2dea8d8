//! The command line, after `--`.

use std::time::Duration;

use clap::Parser;

/// Compares reads of a deep database with the same reads of a small one.
#[derive(Debug, Parser)]
#[command(name = "depth")]
pub struct Options {
    /// Number of workflows in the deep database, with five steps and two journal rows each.
    #[arg(long, env = "DEPTH_WORKFLOWS", default_value_t = 1_000_000, value_parser = sizes())]
    pub workflows: u64,

    /// Number of workflows in the small database.
    #[arg(long, env = "DEPTH_SMALL", default_value_t = 10_000, value_parser = sizes())]
    pub small: u64,

    /// Number of measured calls of each read on each side.
    #[arg(long, env = "DEPTH_CALLS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: u64,

    /// Time limit for each read, in seconds, both sides together.
    #[arg(long, env = "DEPTH_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Measure only reads whose name contains this text: "FsmService", "ListWorkflows". Default: all.
    #[arg(long, env = "DEPTH_ONLY", default_value = "")]
    pub only: String,

    /// Ignored; cargo passes it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Options {
    /// Returns the time limit for each read.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Accepts 4000 to 100 million workflows. With fewer, some list would not fill a page. With
/// more, the numbers of steps would not fit into their ids.
fn sizes() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(4_000..=100_000_000)
}
