//! Measures how read latency grows with the size of the database.
//!
//! `cargo bench --bench depth` starts its own PostgreSQL with two databases. The small one has
//! 10,000 workflows. The deep one has 1,000,000 workflows, 5,000,000 steps, 2,000,000 journal
//! rows, and everything else in proportion, except that both have 10,000 nodes. The benchmark
//! calls every RPC that reads on both in turns and prints the latencies. The target is a ratio
//! of at most 1.5. Then PostgreSQL explains the queries, and the benchmark prints the plan of
//! each query that reads more than ten times the rows it returns. A table shows the disk space of the
//! deep database.
//!
//! A run takes some minutes, and some gigabytes in the directory for temporary files, see
//! TMPDIR. For a first look:
//!
//! ```text
//! cargo bench --bench depth -- --workflows 100000 --calls 100 --only ListWorkflows
//! ```
//!
//! Rows are spread over 30 days and several tenants, one of which has half of them. Most
//! requests are for that tenant. Where possible they return the same number of rows on both
//! sides, usually a page of 20. COPY loads the tables, and the indexes are built afterwards.

#[path = "../common/call.rs"]
mod call;
mod case;
mod cases;
#[path = "../common/cluster.rs"]
mod cluster;
mod copy;
mod dataset;
mod fill;
mod measure;
mod options;
mod plan;
mod plans;
mod report;
#[path = "../common/service.rs"]
mod service;
mod side;
mod sizes;

use std::process::ExitCode;

use clap::Parser;

use cluster::Cluster;
use dataset::Dataset;
use measure::Compared;
use options::Options;
use plans::ExpensiveQuery;
use report::Report;
use side::Side;

/// A result whose error ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The small database.
const SMALL: &str = "small";
/// The deep database.
const DEEP: &str = "deep";

/// Lets COPY bypass the write-ahead log while the tables are loaded. Reads are not affected.
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

/// Runs the benchmark and removes the cluster, also after a failure.
async fn run(options: &Options) -> Result<String> {
    let now = chrono::Utc::now();
    let datasets = (
        Dataset::new(options.small, now),
        Dataset::new(options.workflows, now),
    );
    // Checked before the long load.
    cases::require_complete(&cases::all(datasets.0))?;
    let cluster = Cluster::open(PARAMETERS).await?;
    let outcome = tokio::select! {
        outcome = measure(&cluster, datasets, options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    cluster.close().await?;
    Ok(outcome?.write(options)?)
}

async fn measure(
    cluster: &Cluster,
    datasets: (Dataset, Dataset),
    options: &Options,
) -> Result<Report> {
    fill::fill(cluster, SMALL, &datasets.0).await?;
    fill::fill(cluster, DEEP, &datasets.1).await?;
    let small = Side::start(cluster, SMALL, datasets.0).await?;
    let deep = Side::start(cluster, DEEP, datasets.1).await?;
    let compared = compare(&small, &deep, options).await?;
    small.stop().await?;
    Ok(Report {
        version: cluster.version().await?,
        compared,
        sizes: sizes::sizes(cluster, DEEP).await?,
        peak_memory: deep.stop().await?,
        plans: find_plans(cluster, datasets.1, options).await?,
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

/// Finds expensive queries. Runs after all measurements, because auto_explain costs time.
async fn find_plans(
    cluster: &Cluster,
    dataset: Dataset,
    options: &Options,
) -> Result<Result<Vec<ExpensiveQuery>, String>> {
    eprintln!("explaining the queries");
    if let Err(error) = plans::enable_auto_explain(cluster, DEEP).await {
        return Ok(Err(error.to_string()));
    }
    let deep = Side::start(cluster, DEEP, dataset).await?;
    let found = plans::find_expensive(cluster, DEEP, &deep, &options.only).await?;
    deep.stop().await?;
    Ok(Ok(found))
}
