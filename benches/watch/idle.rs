//! Measures what watchers cost while nothing is written.

use bridgebook::proto::v1::WatchTransitionsRequest;
use diesel::{QueryableByName, sql_types};
use diesel_async::RunQueryDsl;

use crate::{
    Result,
    options::Options,
    stage::{Served, Stage},
    watchers::{PER_CONNECTION, Watchers, connections},
};

/// The namespaces of the watchers.
const NAMESPACES: usize = 10;

/// Prints statements, bookmarks and CPU per second without watchers, with one, and with many.
pub async fn measure(stage: &Stage, options: &Options) -> Result<()> {
    let served = stage.serve("idle").await?;
    println!("| watchers | statements/s | bookmarks/s | CPU of the service, PostgreSQL |");
    println!("|--:|--:|--:|--:|");
    let many = usize::try_from(options.watchers)?;
    for count in [0, 1, many, 10 * many] {
        eprintln!("idle: {count} watchers");
        let row = measure_one(stage, &served, count, options).await?;
        println!("| {count} | {row} |");
    }
    println!();
    served.service.stop().await
}

async fn measure_one(
    stage: &Stage,
    served: &Served,
    count: usize,
    options: &Options,
) -> Result<String> {
    let address = served.service.address;
    let request = |number: usize| WatchTransitionsRequest {
        namespace: format!("idle-{}", number % NAMESPACES),
        ..WatchTransitionsRequest::default()
    };
    let connections = connections(address, count.div_ceil(PER_CONNECTION)).await?;
    let requests = (0..count).map(request).collect();
    let running = Watchers::open(address, &connections, requests)
        .await?
        .run(None);
    // An idle connection tells PostgreSQL within 10 s of the statements that opened the streams.
    tokio::time::sleep(options.duration() * 6 / 5).await;
    let before = (transactions(stage, served).await?, running.bookmarks());
    let cpu_time = stage.cpu_time(served);
    let time = options.duration();
    tokio::time::sleep(time).await;
    let cpu_time = stage.cpu_time(served).percent_since(cpu_time, time);
    let after = (transactions(stage, served).await?, running.bookmarks());
    running.finish(stage, served).await?;
    Ok(format!(
        "{:.2} | {:.1} | {cpu_time}",
        (after.0 - before.0) as f64 / time.as_secs_f64(),
        (after.1 - before.1) as f64 / time.as_secs_f64()
    ))
}

/// Returns the number of transactions in the service's database so far: each is a statement. Connects to
/// another one, so as not to count itself.
async fn transactions(stage: &Stage, served: &Served) -> Result<i64> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = sql_types::BigInt)]
        count: i64,
    }
    let count = diesel::sql_query(
        "SELECT xact_commit + xact_rollback AS count FROM pg_stat_database WHERE datname = $1",
    );
    let count = count.bind::<sql_types::Text, _>(served.database);
    let mut connection = stage.connect(stage.postgres.database()).await?;
    let row: Count = count.get_result(&mut connection).await?;
    Ok(row.count)
}
