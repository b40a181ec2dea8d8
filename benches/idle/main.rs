//! What the service costs while nobody calls: statements that reach PostgreSQL, and the
//! processor.
//!
//! `cargo bench --bench idle` starts a PostgreSQL of its own and the service with
//! everything on that goes on by itself (tokens, figures, retention), waits until it serves,
//! and then looks for `--seconds`. PostgreSQL counts the statements: each is a transaction.

#[expect(dead_code, reason = "the other benchmarks use the rest of it")]
#[path = "../common/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the other benchmarks use the rest of it")]
#[path = "../common/service.rs"]
mod service;

use std::{ffi::OsStr, process::ExitCode, time::Duration};

use clap::Parser;
use diesel::{QueryableByName, sql_types};
use diesel_async::RunQueryDsl;

use cluster::Cluster;
use service::Service;

/// Whatever goes wrong ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The database of the service. What looks at it is connected to another one.
const DATABASE: &str = "idle";

/// What goes on by itself, all of it.
const EVERYTHING: [&str; 10] = [
    "--migrate",
    "--auth",
    "tokens",
    "--metrics-listen",
    "127.0.0.1:0",
    "--retain-transitions",
    "30",
    "--retain-workflows",
    "30",
    "--sweep-grace=1",
];

/// How long after the start it is left alone: connections are made, and what the
/// start asked for is counted.
const SETTLES: Duration = Duration::from_secs(5);

/// Measures what bridgebook costs while nobody calls.
#[derive(Debug, Parser)]
struct Options {
    /// For how many seconds to look.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Cargo passes it to every benchmark.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::open(&[]).await?;
    cluster.create(DATABASE).await?;
    let url = cluster.url(DATABASE);
    let mut arguments = vec![OsStr::new("--database-url"), OsStr::new(&url)];
    arguments.extend(EVERYTHING.map(OsStr::new));
    let service = Service::start(&arguments).await?;
    tokio::time::sleep(SETTLES).await;
    let before = (transactions(&cluster).await?, service.processor_time());
    let time = Duration::from_secs(options.seconds);
    tokio::time::sleep(time).await;
    let after = (transactions(&cluster).await?, service.processor_time());
    let statements = (after.0 - before.0) as f64 / time.as_secs_f64();
    println!("{statements:.2} statements in a second");
    if let (Some(before), Some(after)) = (before.1, after.1) {
        let share = (after - before).div_duration_f64(time);
        println!("{:.2} % of a core", share * 100.0);
    }
    service.stop().await?;
    cluster.close().await
}

/// How many transactions PostgreSQL has had in the database.
async fn transactions(cluster: &Cluster) -> Result<i64> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = sql_types::BigInt)]
        count: i64,
    }
    let count = diesel::sql_query(format!(
        "SELECT xact_commit + xact_rollback AS count FROM pg_stat_database
          WHERE datname = '{DATABASE}'"
    ));
    let mut connection = cluster.connect(cluster.postgres.database()).await?;
    let row: Count = count.get_result(&mut connection).await?;
    Ok(row.count)
}
