//! Measures whether tenants feel each other, and what an overloaded service still does.
//!
//! `cargo bench --bench fairness` starts its own PostgreSQL and services, and prints four tables:
//!
//! * `neighbours`: the latency of tenant B's single calls while tenant A floods the same service,
//!   against the latency while A floods another service on the machine. PostgreSQL, the services and
//!   the callers share the machine in both cases.
//! * `overload`: goodput in an open loop at 1.3, 2 and 4 times the peak of a closed loop. The callers
//!   take a part of the machine, and more of it the more they send; the adjusted share is that of
//!   the cores that they leave.
//! * `readers`: the latency of B's calls while clients ask for large lists and do not read them,
//!   against the latency without them.
//! * `rejects`: the CPU time that a rejected call costs, against that of one that succeeds.
//!
//! Each number is taken in turns with the one that it is compared with. For a first look:
//!
//! ```text
//! cargo bench --bench fairness -- --seconds 1 --rounds 1
//! ```

#[path = "../common/call.rs"]
mod call;
#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/cluster.rs"]
mod cluster;
mod load;
mod neighbours;
mod overload;
mod readers;
mod rejects;
mod requests;
#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/service.rs"]
mod service;

use std::{ffi::OsStr, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use cluster::Cluster;
use service::Service;

/// A result whose error ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Measures neighbours, overload, clients that do not read, and rejects.
#[derive(Debug, Parser)]
#[command(name = "fairness")]
struct Options {
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Number of rounds. The tables show the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Comma-separated list of what to measure. Default: everything.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Ignored; cargo passes it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// A tenant beside one that floods the service.
    Neighbours,
    /// More calls than the service can do.
    Overload,
    /// Clients that do not read.
    Readers,
    /// The cost of a rejected call.
    Rejects,
}

impl Options {
    fn wants(&self, subject: Subject) -> bool {
        self.only.is_empty() || self.only.contains(&subject)
    }

    fn window(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

// Two threads suffice for the callers. More would take cores from the service and PostgreSQL.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairness: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the benchmark and removes the test bed, also after a failure.
async fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::open(&[]).await?;
    let outcome = tokio::select! {
        outcome = measure(&cluster, options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    cluster.close().await?;
    outcome
}

async fn measure(cluster: &Cluster, options: &Options) -> Result<()> {
    let service = start(cluster, "one", &[]).await?;
    if options.wants(Subject::Neighbours) {
        let other = start(cluster, "other", &[]).await?;
        neighbours::measure(service.address, other.address, options).await?;
        other.stop().await?;
    }
    if options.wants(Subject::Overload) {
        overload::measure(&service, options).await?;
    }
    if options.wants(Subject::Readers) {
        readers::measure(service.address, options).await?;
    }
    if options.wants(Subject::Rejects) {
        rejects::measure(cluster, &service, options).await?;
    }
    service.stop().await
}

/// Starts a service on a database of its own.
async fn start(cluster: &Cluster, database: &str, settings: &[&OsStr]) -> Result<Service> {
    cluster.create(database).await?;
    let url = cluster.url(database);
    let arguments = ["--migrate", "--database-url", &url].map(OsStr::new);
    Service::start(&[&arguments, settings].concat()).await
}
