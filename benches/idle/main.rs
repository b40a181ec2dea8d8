//! Measures what an idle service costs: statements per second in PostgreSQL, and CPU.
//!
//! `cargo bench --bench idle` starts its own PostgreSQL, and the service with every
//! background task on (tokens, metrics, retention). It waits until the service is SERVING
//! and then counts for `--seconds`. PostgreSQL counts the statements: each is a transaction.

#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "../common/service.rs"]
mod service;

use std::{ffi::OsStr, process::ExitCode, time::Duration};

use clap::Parser;
use diesel::{QueryableByName, sql_types};
use diesel_async::RunQueryDsl;

use cluster::Cluster;
use service::Service;

/// A result whose error ends the benchmark.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The database of the service. The benchmark connects to another one, so as not to count itself.
const DATABASE: &str = "idle";

/// Turns every background task on.
const ALL_BACKGROUND_TASKS: [&str; 10] = [
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

/// The time between startup and the measurement, so that opening connections and the
/// statements of the startup do not count.
const WARM_UP: Duration = Duration::from_secs(5);

/// Measures what an idle bridgebook costs.
#[derive(Debug, Parser)]
struct Options {
    /// Duration of the measurement, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Ignored; cargo passes it to every benchmark.
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
    arguments.extend(ALL_BACKGROUND_TASKS.map(OsStr::new));
    let service = Service::start(&arguments).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = (transactions(&cluster).await?, service.cpu_time());
    let time = Duration::from_secs(options.seconds);
    tokio::time::sleep(time).await;
    let after = (transactions(&cluster).await?, service.cpu_time());
    let statements = (after.0 - before.0) as f64 / time.as_secs_f64();
    println!("{statements:.2} statements per second");
    if let (Some(before), Some(after)) = (before.1, after.1) {
        let share = (after - before).div_duration_f64(time);
        println!("{:.2} % of one core", share * 100.0);
    }
    service.stop().await?;
    cluster.close().await
}

/// Returns the number of transactions in the service's database so far.
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
