//! bridgebook over gRPC against direct SQL, side by side in one run.
//!
//! `cargo bench --bench vs_sql` starts a PostgreSQL of its own, with the settings
//! of production, and measures in turns bridgebook's RPCs on loopback and
//! pgbench, which writes or reads the same rows with the best single statement
//! per transaction over the Unix socket. Beside that it measures whether a late
//! page of a long list costs more than the first one. Progress goes to standard
//! error, the tables to standard output. It takes about twelve minutes; for a
//! first look:
//!
//! ```text
//! cargo bench --bench vs_sql -- --seconds 1 --rounds 1 --only start,boot
//! ```
//!
//! Both sides are treated alike: databases with the same tables, indexes and
//! rows; the same warm-up that does not count; a checkpoint before every
//! measurement. bridgebook is the real program in a process of its own. The load
//! generator, the server and PostgreSQL share the machine. pgbench is tried with
//! 1 to 64 connections and counts with its best.
//!
//! What tokens and limits cost is measured in turns, too, with bridgebook without
//! them as the peer, if that is asked for:
//!
//! ```text
//! cargo bench --bench vs_sql -- --only guard --rounds 7
//! ```
//!
//! And so is what callers notice of the removal of a million old rows:
//!
//! ```text
//! cargo bench --bench vs_sql -- --only prune --seconds 10 --rounds 5
//! ```
//!
//! The database is on the disk of the directory for temporary files, see TMPDIR;
//! where that is in memory, commits cost less than they do in production.

#[path = "../common/call.rs"]
mod call;
#[path = "../common/cluster.rs"]
mod cluster;
mod guard;
mod load;
mod measured;
mod options;
mod pages;
mod pgbench;
mod prune;
mod report;
mod scenario;
mod scenarios;
mod seed;
#[path = "../common/service.rs"]
mod service;
mod stage;

use std::{ffi::OsStr, process::ExitCode, time::Duration};

use clap::Parser;

use guard::measure_guard;
use options::{Options, Subject};
use pages::measure_pages;
use pgbench::Pgbench;
use prune::measure_prune;
use report::Report;
use scenario::{Comparison, Scenario, Sides, compare};
use scenarios::{
    ALL_ENTITIES, Accumulate, BatchHeartbeat, Discover, Get, HOT_ENTITIES, Heartbeat, Record,
    Start, Steps, Transition,
};
use service::Service;
use stage::{SERVED, Stage};

/// Whatever goes wrong ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

// Two threads, however many cores there are: callers need little, and what they
// take is taken from the server and PostgreSQL.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vs_sql: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and cleans up whatever comes of it.
async fn run(options: &Options) -> Result<String> {
    let stage = Stage::open().await?;
    let outcome = tokio::select! {
        outcome = measure(&stage, options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    stage.close().await?;
    Ok(outcome?.write(options)?)
}

async fn measure(stage: &Stage, options: &Options) -> Result<Report> {
    let pgbench = Pgbench::find(stage).await?;
    eprintln!("preparing the databases");
    stage.prepare().await?;
    let starts = match options.wants(Subject::Boot) {
        true => measure_starts(stage, options).await?,
        false => Vec::new(),
    };
    let url = stage.url(SERVED);
    let service = Service::start(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
    let sides = Sides {
        stage,
        address: service.address,
        pgbench,
    };
    let comparisons = measure_calls(&sides, options).await?;
    // Last, because its rows are in one of the databases only.
    let pages = match options.wants(Subject::Pages) {
        true => Some(measure_pages(&sides, options).await?),
        false => None,
    };
    let guard = match options.wants(Subject::Guard) {
        true => Some(measure_guard(&sides, options).await?),
        false => None,
    };
    let prune = match options.wants(Subject::Prune) {
        true => measure_prune(&sides, options).await?,
        false => Vec::new(),
    };
    let report = Report {
        guard,
        prune,
        version: stage.version().await?,
        // Nothing to be proud of if nothing was asked of it.
        peak_memory: service
            .peak_memory()
            .filter(|_| !comparisons.is_empty() || pages.is_some()),
        comparisons,
        pages,
        starts,
    };
    service.stop().await?;
    Ok(report)
}

async fn measure_calls(sides: &Sides<'_>, options: &Options) -> Result<Vec<Comparison>> {
    let mut calls = Calls {
        sides,
        options,
        comparisons: Vec::new(),
    };
    calls.compare(Subject::Start, Start::new()).await?;
    calls.compare(Subject::Get, Get::default()).await?;
    let transition = Transition::new(options);
    calls.compare(Subject::Transition, transition).await?;
    // After GetWorkflow, because it throws away the steps that that one reads.
    calls.compare(Subject::Steps, Steps::new()).await?;
    let record = Record::<ALL_ENTITIES>::default();
    calls.compare(Subject::Record, record).await?;
    let record = Record::<HOT_ENTITIES>::default();
    calls.compare(Subject::RecordHot, record).await?;
    let accumulate = Accumulate::default();
    calls.compare(Subject::Accumulate, accumulate).await?;
    let heartbeat = Heartbeat::default();
    calls.compare(Subject::Heartbeat, heartbeat).await?;
    let heartbeats = BatchHeartbeat::default();
    calls.compare(Subject::BatchHeartbeat, heartbeats).await?;
    calls
        .compare(Subject::Discover, Discover::default())
        .await?;
    Ok(calls.comparisons)
}

/// The comparisons so far.
struct Calls<'a> {
    sides: &'a Sides<'a>,
    options: &'a Options,
    comparisons: Vec<Comparison>,
}

impl Calls<'_> {
    /// Compares, if it is wanted.
    async fn compare(&mut self, subject: Subject, scenario: impl Scenario) -> Result<()> {
        if self.options.wants(subject) {
            let comparison = compare(scenario, self.sides, self.options).await?;
            self.comparisons.push(comparison);
        }
        Ok(())
    }
}

/// How long `bridgebook serve` takes on a private cluster that exists already.
async fn measure_starts(stage: &Stage, options: &Options) -> Result<Vec<Duration>> {
    let directory = stage.path("private");
    let arguments = ["--data-dir".as_ref(), directory.as_os_str()];
    service::migrate(&arguments).await?;
    let mut starts = Vec::new();
    for round in 1..=options.rounds {
        let service = Service::start(&arguments).await?;
        eprintln!(
            "start {round} of {}: {} ms",
            options.rounds,
            service.took.as_millis()
        );
        starts.push(service.took);
        service.stop().await?;
    }
    Ok(starts)
}
