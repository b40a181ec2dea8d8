//! What can be said on the command line, after `--`.

use std::time::Duration;

use clap::Parser;

/// Compares reads of a full database with the same reads of a small one.
#[derive(Debug, Parser)]
#[command(name = "depth")]
pub struct Options {
    /// How many workflows the deep database has, with five steps and two moves of the journal each.
    #[arg(long, env = "DEPTH_WORKFLOWS", default_value_t = 1_000_000, value_parser = sizes())]
    pub workflows: u64,

    /// How many workflows the small database has.
    #[arg(long, env = "DEPTH_SMALL", default_value_t = 10_000, value_parser = sizes())]
    pub small: u64,

    /// How many calls of each read count on each side.
    #[arg(long, env = "DEPTH_CALLS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: u64,

    /// For how many seconds a read is measured at most, both sides together.
    #[arg(long, env = "DEPTH_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Only reads whose name contains this: "FsmService", "ListWorkflows". Default: all.
    #[arg(long, env = "DEPTH_ONLY", default_value = "")]
    pub only: String,

    /// Cargo passes it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Options {
    /// How long to go on with a read that is slow.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// From 4000 on a page of every list is full; beyond 100 million the numbers of
/// steps would not fit in where their ids have room for them.
fn sizes() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(4_000..=100_000_000)
}
