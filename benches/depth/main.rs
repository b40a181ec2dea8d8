//! What reads cost in a database that is full, against one that is not.
//!
//! `cargo bench --bench depth` starts a PostgreSQL of its own, with two databases:
//! one with 10,000 workflows and one with 1,000,000 workflows, 5,000,000 steps,
//! 2,000,000 rows of the journal, and the rest in proportion; only of nodes there
//! are 10,000 in both. It calls every RPC that reads on both in turns, and prints
//! how long the calls took. The aim is that the deep database takes at most 1.5
//! times as long. Then it has PostgreSQL explain the queries, and prints the plan
//! of each that reads more than ten times the rows it answers. It takes some
//! minutes, and some gigabytes of the disk of the directory for temporary files,
//! see TMPDIR.
//! For a first look:
//!
//! ```text
//! cargo bench --bench depth -- --workflows 100000 --calls 100 --only ListWorkflows
//! ```
//!
//! Rows are spread over 30 days and several tenants, one of which has half of
//! them. Most requests are that one's; where they can, they ask for as many rows
//! on both sides, usually a page of 20. Tables are filled by COPY, and their
//! indexes are built afterwards.

#[path = "../common/call.rs"]
mod call;
mod case;
mod cases;
#[path = "../common/cluster.rs"]
mod cluster;
mod copy;
mod fill;
mod measure;
mod options;
mod plan;
mod plans;
mod report;
#[path = "../common/service.rs"]
mod service;
mod side;
mod world;

use std::process::ExitCode;

use clap::Parser;

use cluster::Cluster;
use measure::Compared;
use options::Options;
use plans::Found;
use report::Report;
use side::Side;
use world::World;

/// Whatever goes wrong ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The database with little in it.
const SMALL: &str = "small";
/// The database with much in it.
const DEEP: &str = "deep";

/// What is filled in need not go through the log, which this allows; reads do
/// not notice.
const PARAMETERS: &[(&str, &str)] = &[("wal_level", "minimal"), ("max_wal_senders", "0")];

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("depth: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and cleans up whatever comes of it.
async fn run(options: &Options) -> Result<String> {
    let now = chrono::Utc::now();
    let worlds = (
        World::new(options.small, now),
        World::new(options.workflows, now),
    );
    // Before anything is filled.
    cases::require_complete(&cases::all(worlds.0))?;
    let cluster = Cluster::open(PARAMETERS).await?;
    let outcome = tokio::select! {
        outcome = measure(&cluster, worlds, options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    cluster.close().await?;
    Ok(outcome?.write(options)?)
}

async fn measure(cluster: &Cluster, worlds: (World, World), options: &Options) -> Result<Report> {
    fill::fill(cluster, SMALL, &worlds.0).await?;
    fill::fill(cluster, DEEP, &worlds.1).await?;
    let small = Side::start(cluster, SMALL, worlds.0).await?;
    let deep = Side::start(cluster, DEEP, worlds.1).await?;
    let compared = compare(&small, &deep, options).await?;
    small.stop().await?;
    Ok(Report {
        version: cluster.version().await?,
        compared,
        peak_memory: deep.stop().await?,
        plans: find_plans(cluster, worlds.1, options).await?,
    })
}

async fn compare(small: &Side, deep: &Side, options: &Options) -> Result<Vec<Compared>> {
    let mut compared = Vec::new();
    for (of_small, of_deep) in small.cases.iter().zip(&deep.cases) {
        if of_small.name().contains(&options.only) {
            eprintln!("{}", of_small.name());
            let case = measure::compare((small, of_small), (deep, of_deep), options).await?;
            compared.push(case);
        }
    }
    Ok(compared)
}

/// After everything was measured, because explaining takes its time.
async fn find_plans(
    cluster: &Cluster,
    world: World,
    options: &Options,
) -> Result<Result<Vec<Found>, String>> {
    eprintln!("looking at the plans");
    if let Err(error) = plans::explain(cluster, DEEP).await {
        return Ok(Err(error.to_string()));
    }
    let deep = Side::start(cluster, DEEP, world).await?;
    let found = plans::find(cluster, DEEP, &deep, &options.only).await?;
    deep.stop().await?;
    Ok(Ok(found))
}
