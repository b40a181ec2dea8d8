//! Measures the streams of WatchTransitions: lag, memory, throughput, and what they cost writers.
//!
//! `cargo bench --bench watch` starts its own PostgreSQL and services, and prints a table per subject:
//!
//! * `lag`: from a writer's response to a watcher's receipt of the row, with 100 watchers that want
//!   every row of one namespace. Writers make `--rate` transitions per second.
//! * `many`: the same with 10,000 watchers in 100 namespaces. In the first variant each waits for one
//!   entity, in the second it wants every row of its namespace. Also the memory of an idle watcher.
//! * `catch_up`: rows per second of a watcher that reads an old journal, with and without a filter.
//! * `cost`: the rates of StartWorkflow and RecordTransition with the index of the feed against those
//!   without it, and with watchers against those without them.
//! * `idle`: statements in PostgreSQL and CPU while watchers are open and nothing is written.
//!
//! Afterwards it compares what each watcher received with the journal. It fails if a watcher missed,
//! repeated or reordered a row. A watcher that the service ends as too slow watches again after its last
//! position, as a client should; the tables count that.
//!
//! PostgreSQL, the service, the writers and the watchers share the machine. If they do not keep up, the
//! tables show it: `reached` is the rate of the writers, and the lag includes the time that a watcher of
//! the benchmark takes. For a first look:
//!
//! ```text
//! cargo bench --bench watch -- --only lag,catch-up --seconds 1 --rounds 1
//! ```

mod answers;
#[path = "../common/call.rs"]
mod call;
mod calls;
mod catch_up;
#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/cluster.rs"]
mod cluster;
mod cost;
mod idle;
mod journal;
#[path = "../common/load.rs"]
mod load;
#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/measured.rs"]
mod measured;
mod options;
mod paced;
#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/service.rs"]
mod service;
mod stage;
mod stream;
mod watcher;
mod watchers;
mod writers;

use std::process::ExitCode;

use clap::Parser;

use options::{Options, Subject};
use stage::Stage;

/// An error that ends the benchmark.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error ends the benchmark.
type Result<T, E = Failure> = std::result::Result<T, E>;

// Two threads suffice for the callers. More would take cores from the service and PostgreSQL.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watch: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the benchmark and removes the test bed, also after a failure.
async fn run(options: &Options) -> Result<()> {
    let stage = Stage::open().await?;
    let outcome = tokio::select! {
        outcome = measure(&stage, options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    stage.close().await?;
    outcome
}

async fn measure(stage: &Stage, options: &Options) -> Result<()> {
    if options.wants(Subject::Lag) {
        paced::measure_lag(stage, options).await?;
    }
    if options.wants(Subject::Many) {
        paced::measure_many(stage, options).await?;
    }
    if options.wants(Subject::CatchUp) {
        catch_up::measure(stage, options).await?;
    }
    if options.wants(Subject::Cost) {
        cost::measure(stage, options).await?;
    }
    if options.wants(Subject::Idle) {
        idle::measure(stage, options).await?;
    }
    Ok(())
}
