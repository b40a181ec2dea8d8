//! Measures the lag of watchers while writers write at a given rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bridgebook::proto::v1::WatchTransitionsRequest;

use crate::{
    Result,
    answers::Answers,
    options::Options,
    stage::{CpuTime, Served, Stage},
    watchers::{PER_CONNECTION, Running, Watchers, connections},
    writers::{Writers, entity_id},
};

/// The entities of the namespace of lag: so many that few moves wait for another one.
const ENTITIES: u64 = 1000;

/// What the rows of the table have.
const COLUMNS: &str = "| | watchers | rate asked | reached | lag p50 | p99 | max | rows/s delivered \
    | rows per message | resumed | CPU of the service, PostgreSQL |\n\
    |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Prints the lag with watchers that want every row of one namespace.
pub async fn measure_lag(stage: &Stage, options: &Options) -> Result<()> {
    eprintln!("lag");
    let served = stage.serve("lag").await?;
    let address = served.service.address;
    let request = WatchTransitionsRequest {
        namespace: "lag".to_owned(),
        ..WatchTransitionsRequest::default()
    };
    let count = usize::try_from(options.watchers)?;
    let connections = connections(address, count.div_ceil(PER_CONNECTION)).await?;
    let watchers = Watchers::open(address, &connections, vec![request; count]).await?;
    let writers = Writers {
        address,
        rate: options.rate,
        batch: options.batch,
        namespaces: vec!["lag".to_owned()],
        entities: ENTITIES,
    };
    let paced = measure(stage, &served, watchers, writers, options).await?;
    println!("{COLUMNS}");
    println!("| lag | {count} | {} | {paced} |", options.rate);
    println!();
    served.service.stop().await
}

/// Prints the lag with many watchers in many namespaces, and their memory.
pub async fn measure_many(stage: &Stage, options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    for (database, title, is_filtered) in [
        ("many_filtered", "each waits for an entity", true),
        ("many", "each wants all of its namespace", false),
    ] {
        eprintln!("many: {title}");
        let served = stage.serve(database).await?;
        let row = measure_variant(stage, &served, is_filtered, options).await?;
        rows.push(format!("| {title} | {row} |"));
        served.service.stop().await?;
    }
    println!("{COLUMNS}");
    rows.iter().for_each(|row| println!("{row}"));
    println!();
    Ok(())
}

async fn measure_variant(
    stage: &Stage,
    served: &Served,
    is_filtered: bool,
    options: &Options,
) -> Result<String> {
    let address = served.service.address;
    let namespaces: Vec<_> = (0..options.many).map(|it| format!("many-{it}")).collect();
    let requests = |entities: std::ops::Range<u64>| -> Vec<_> {
        let request = |entity: u64, (number, namespace): (u64, &String)| WatchTransitionsRequest {
            namespace: namespace.clone(),
            entity_id: match is_filtered {
                true => entity_id(number, entity).to_string(),
                false => String::new(),
            },
            ..WatchTransitionsRequest::default()
        };
        let named = || (0..).zip(&namespaces);
        entities
            .flat_map(|entity| named().map(move |it| request(entity, it)))
            .collect()
    };
    let connections = connections(address, usize::try_from(options.many)?).await?;
    // The first watchers pay for the connections and the groups.
    let first = Watchers::open(address, &connections, requests(0..1)).await?;
    let before = settled_memory(served, options).await;
    let begun = Instant::now();
    let rest = Watchers::open(address, &connections, requests(1..options.many)).await?;
    let opened_after = begun.elapsed();
    let rejected = rest.shared.rejected.load(Ordering::Relaxed);
    let after = settled_memory(served, options).await;
    let added = options.many * (options.many - 1);
    let each = (after.saturating_sub(before)) as f64 / added.max(1) as f64;
    println!(
        "{added} idle watchers: {each:.1} KiB each; opened in {:.1} s, {rejected} times rejected\n",
        opened_after.as_secs_f64()
    );
    let writers = Writers {
        address,
        rate: options.rate,
        batch: options.batch,
        namespaces: namespaces.clone(),
        entities: options.many,
    };
    let watchers = first.join(rest);
    let paced = measure(stage, served, watchers, writers, options).await?;
    Ok(format!(
        "{} | {} | {paced}",
        options.many * options.many,
        options.rate
    ))
}

/// Returns the resident memory of a service in KiB after a while. The allocator returns what the opening
/// used within 10 s.
async fn settled_memory(served: &Served, options: &Options) -> u64 {
    tokio::time::sleep(options.duration() * 6 / 5).await;
    served.service.resident_memory().unwrap_or_default()
}

/// Measures watchers beside writers. Returns columns of the table, from the rate that was reached on.
async fn measure(
    stage: &Stage,
    served: &Served,
    watchers: Watchers,
    writers: Writers,
    options: &Options,
) -> Result<String> {
    let window = options.window();
    let time = window.warm_up + window.counted;
    let answers = Arc::new(Answers::new(writers.rows(time), window.warm_up));
    let running = watchers.run(Some(&answers));
    let (before, written) = tokio::join!(
        warmed_up(stage, served, &running, window.warm_up),
        writers.run(time, &answers)
    );
    written?;
    let delivered = running.rows() - before.0;
    // The writers wait for their last responses.
    let elapsed = answers.elapsed().saturating_sub(window.warm_up);
    let cpu_time = stage.cpu_time(served).percent_since(before.1, elapsed);
    let shared = Arc::clone(&running.shared);
    let all = running.finish(stage, served).await?;
    let lags: Vec<u32> = all.into_iter().flat_map(|it| it.lags).collect();
    let [p50, p99, max] = percentiles(lags);
    let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
    Ok(format!(
        "{:.0} | {p50} | {p99} | {max} | {:.0} | {:.1} | {} | {cpu_time}",
        answers.count() as f64 / elapsed.as_secs_f64(),
        delivered as f64 / elapsed.as_secs_f64(),
        load(&shared.rows) as f64 / load(&shared.messages).max(1) as f64,
        load(&shared.resumed),
    ))
}

/// Returns the rows that were delivered during the warm-up, and the CPU time until then.
async fn warmed_up(
    stage: &Stage,
    served: &Served,
    running: &Running,
    warm_up: Duration,
) -> (u64, CpuTime) {
    tokio::time::sleep(warm_up).await;
    (running.rows(), stage.cpu_time(served))
}

/// Returns the median, the 99th percentile and the maximum of microseconds, as text.
fn percentiles(mut lags: Vec<u32>) -> [String; 3] {
    lags.sort_unstable();
    [50, 99, 100].map(|percent| {
        let index = (lags.len() * percent / 100).min(lags.len().saturating_sub(1));
        let micros = lags.get(index).copied().unwrap_or_default();
        format!("{:.1} ms", f64::from(micros) / 1e3)
    })
}
