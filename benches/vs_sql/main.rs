//! Benchmarks bridgebook over gRPC against direct SQL, or against another build, in one run.
//!
//! `cargo bench --bench vs_sql` starts its own PostgreSQL with the production settings. It
//! measures in turns bridgebook's RPCs on loopback, and pgbench over the Unix socket. pgbench
//! writes or reads the same rows with the best single statement per transaction. The benchmark
//! also measures whether a late page of a long list costs more than the first one. Progress
//! goes to stderr and the tables to stdout. A full run takes about twelve minutes. For a first
//! look:
//!
//! ```text
//! cargo bench --bench vs_sql -- --seconds 1 --rounds 1 --only start,boot
//! ```
//!
//! Both sides get the same treatment: databases with the same tables, indexes and rows, the
//! same warm-up that does not count, and a checkpoint before every measurement. bridgebook
//! runs as a separate process. The load generator, the server and PostgreSQL share the machine.
//! pgbench runs with 1 to 64 connections, and its best result counts.
//!
//! To compare two builds, give the path of the other build's program. Both run on one database
//! and are measured in turns; the table shows the ratio of this build to the other one:
//!
//! ```text
//! cargo bench --bench vs_sql -- --against PATH --only start,tenants,get,record --rounds 7
//! ```
//!
//! The cost of tokens and limits is measured on request, against bridgebook without them:
//!
//! ```text
//! cargo bench --bench vs_sql -- --only guard --rounds 7
//! ```
//!
//! So is the cost to callers while a million old rows are pruned:
//!
//! ```text
//! cargo bench --bench vs_sql -- --only prune --seconds 10 --rounds 5
//! ```
//!
//! The database is in the directory for temporary files, see TMPDIR. If that is in memory,
//! commits cost less than in production.

#[path = "../common/call.rs"]
mod call;
#[path = "../common/cluster.rs"]
mod cluster;
mod guard;
#[path = "../common/load.rs"]
mod load;
#[path = "../common/measured.rs"]
mod measured;
mod options;
mod pages;
mod pair;
mod pgbench;
mod prune;
mod report;
mod rounds;
mod scenario;
mod scenarios;
mod seed;
#[path = "../common/service.rs"]
mod service;
mod stage;

use std::{ffi::OsStr, path::Path, process::ExitCode, time::Duration};

use clap::Parser;

use guard::measure_guard;
use options::{Options, Subject};
use pages::measure_pages;
use pair::{Pair, PairRounds};
use pgbench::Pgbench;
use prune::measure_prune;
use report::Report;
use scenario::{Comparison, Scenario, Sides, compare};
use scenarios::{
    ALL_ENTITIES, Accumulate, BatchHeartbeat, Discover, FEW_TENANTS, Get, HOT_ENTITIES, Heartbeat,
    MANY_TENANTS, Record, Start, Steps, Transition,
};
use service::Service;
use stage::{SERVED, Stage};

/// A result whose error ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

// Two threads suffice for the callers. More would take cores from the server and PostgreSQL.
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

/// Runs the benchmark and removes the test bed, also after a failure.
async fn run(options: &Options) -> Result<String> {
    let stage = Stage::open().await?;
    let outcome = tokio::select! {
        outcome = measure_all(&stage, options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    stage.close().await?;
    Ok(outcome?.write(options)?)
}

async fn measure_all(stage: &Stage, options: &Options) -> Result<Report> {
    match &options.against {
        Some(program) => measure_builds(stage, program, options).await,
        None => measure_against_sql(stage, options).await,
    }
}

/// Measures this build against the one at `program`.
async fn measure_builds(stage: &Stage, program: &Path, options: &Options) -> Result<Report> {
    eprintln!("preparing the databases");
    stage.prepare().await?;
    let pair = Pair::of_builds(stage, program).await?;
    let mut calls = Calls::new(Peer::Build(&pair), stage, options);
    calls.measure_all().await?;
    if calls.pairs.is_empty() {
        return Err("--against measures RPCs only, and --only names none".into());
    }
    let report = Report {
        builds: calls.pairs,
        version: stage.version().await?,
        ..Report::default()
    };
    pair.stop().await?;
    Ok(report)
}

async fn measure_against_sql(stage: &Stage, options: &Options) -> Result<Report> {
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
    let mut calls = Calls::new(Peer::Pgbench(&sides), stage, options);
    calls.measure_all().await?;
    let comparisons = calls.comparisons;
    // After the comparisons, because its rows are in one of the databases only.
    let pages = match options.wants(Subject::Pages) {
        true => Some(measure_pages(&sides, options).await?),
        false => None,
    };
    let guard = match options.wants(Subject::Guard) {
        true => Some(measure_guard(stage, options).await?),
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
        // Meaningless if the service received no calls.
        peak_memory: service
            .peak_memory()
            .filter(|_| !comparisons.is_empty() || pages.is_some()),
        comparisons,
        pages,
        starts,
        ..Report::default()
    };
    service.stop().await?;
    Ok(report)
}

/// The peer of the comparisons.
enum Peer<'a> {
    Pgbench(&'a Sides<'a>),
    Build(&'a Pair),
}

/// The comparisons of RPCs so far.
struct Calls<'a> {
    peer: Peer<'a>,
    stage: &'a Stage,
    options: &'a Options,
    comparisons: Vec<Comparison>,
    pairs: Vec<PairRounds>,
}

impl<'a> Calls<'a> {
    fn new(peer: Peer<'a>, stage: &'a Stage, options: &'a Options) -> Self {
        Calls {
            peer,
            stage,
            options,
            comparisons: Vec::new(),
            pairs: Vec::new(),
        }
    }

    /// Measures all RPCs that the options name.
    async fn measure_all(&mut self) -> Result<()> {
        self.measure(Subject::Start, Start::<1>::new()).await?;
        if let Peer::Build(_) = self.peer {
            let few = Start::<FEW_TENANTS>::new();
            self.measure(Subject::Tenants, few).await?;
            let many = Start::<MANY_TENANTS>::new();
            self.measure(Subject::Tenants, many).await?;
        }
        self.measure(Subject::Get, Get::default()).await?;
        let transition = Transition::new(self.options);
        self.measure(Subject::Transition, transition).await?;
        // After GetWorkflow, because it removes the steps that GetWorkflow reads.
        self.measure(Subject::Steps, Steps::new()).await?;
        let record = Record::<ALL_ENTITIES>::default();
        self.measure(Subject::Record, record).await?;
        let record = Record::<HOT_ENTITIES>::default();
        self.measure(Subject::RecordHot, record).await?;
        let accumulate = Accumulate::default();
        self.measure(Subject::Accumulate, accumulate).await?;
        let heartbeat = Heartbeat::default();
        self.measure(Subject::Heartbeat, heartbeat).await?;
        let heartbeats = BatchHeartbeat::default();
        self.measure(Subject::BatchHeartbeat, heartbeats).await?;
        self.measure(Subject::Discover, Discover::default()).await
    }

    /// Measures a scenario, if the options name it.
    async fn measure<S: Scenario>(&mut self, subject: Subject, scenario: S) -> Result<()> {
        if !self.options.wants(subject) {
            return Ok(());
        }
        match self.peer {
            Peer::Pgbench(sides) => {
                let comparison = compare(scenario, sides, self.options).await?;
                self.comparisons.push(comparison);
            }
            Peer::Build(pair) => {
                let rounds = pair.measure(scenario, S::CALLERS, self.stage, self.options);
                self.pairs.extend(rounds.await?);
            }
        }
        Ok(())
    }
}

/// Measures the startup time of `bridgebook serve` on an existing private cluster.
async fn measure_starts(stage: &Stage, options: &Options) -> Result<Vec<Duration>> {
    let directory = stage.path("private");
    let arguments = ["--data-dir".as_ref(), directory.as_os_str()];
    service::migrate(&arguments).await?;
    let mut starts = Vec::new();
    for round in 1..=options.rounds {
        let service = Service::start(&arguments).await?;
        eprintln!(
            "startup, round {round} of {}: {} ms",
            options.rounds,
            service.startup_time.as_millis()
        );
        starts.push(service.startup_time);
        service.stop().await?;
    }
    Ok(starts)
}
