//! More calls than the service can do.

use std::{
    cell::Cell,
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use bridgebook::client::probe::probe;
use tokio::time::sleep;

use crate::{
    Options, Result,
    call::connect,
    load::{End, Ended, Requests, closed, count, median, one, open, percentile},
    requests::Tenant,
    service::{Service, cpu_time},
};

/// The callers of the closed loop, whose rate is the peak.
const CALLERS: usize = 256;
/// The connections of the open loop.
const CONNECTIONS: usize = 64;
/// The loads, as multiples of the peak.
const LOADS: [f64; 3] = [1.3, 2.0, 4.0];
/// The interval of the health checks.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// The latency of a single call, at most, once the service is as fast as before.
const NORMAL: Duration = Duration::from_millis(100);

/// What a load did.
struct Measured {
    goodput: f64,
    /// The cores that the callers took.
    generator: f64,
    rejected: usize,
    rejected_p99: Duration,
    other: usize,
    unhealthy: usize,
    /// The time after the load until calls are as fast as before.
    recovery: Duration,
}

/// Prints the goodput at each load, as a share of the peak.
pub async fn measure(service: &Service, options: &Options) -> Result<()> {
    let tenant = Tenant::new(service.address, 0).await?;
    let requests: Requests = Arc::new(move || tenant.step());
    println!(
        "| load | goodput of the peak | adjusted | rejected | p99 of rejects | other errors | failed health checks | recovery |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    let cores = available_parallelism()?.get() as f64;
    for load in LOADS {
        let (mut share, mut adjusted, mut last) = (Vec::new(), Vec::new(), None);
        for round in 1..=options.rounds {
            eprintln!("{load} times the peak, round {round} of {}", options.rounds);
            let (address, window) = (service.address, options.window());
            let calls = closed(address, CALLERS, Arc::clone(&requests), window);
            let peak = run(service, &requests, options, calls).await?;
            let rate = load * peak.goodput;
            let calls = open(address, CONNECTIONS, rate, Arc::clone(&requests), window);
            let loaded = run(service, &requests, options, calls).await?;
            share.push(loaded.goodput / peak.goodput);
            adjusted.push(
                loaded.goodput / peak.goodput * (cores - peak.generator)
                    / (cores - loaded.generator),
            );
            last = Some(loaded);
        }
        let Some(last) = last else { continue };
        println!(
            "| {load} | {:.0} % | {:.0} % | {} | {} ms | {} | {} | {} ms |",
            median(share) * 100.0,
            median(adjusted) * 100.0,
            last.rejected,
            last.rejected_p99.as_millis(),
            last.other,
            last.unhealthy,
            last.recovery.as_millis(),
        );
    }
    Ok(())
}

/// Runs a load, and checks health meanwhile.
async fn run(
    service: &Service,
    requests: &Requests,
    options: &Options,
    load: impl Future<Output = Result<Vec<Ended>>>,
) -> Result<Measured> {
    let own_cpu = || cpu_time(std::process::id()).unwrap_or_default();
    let unhealthy = Cell::new(0);
    let health = async {
        let address = service.address.to_string();
        loop {
            let is_healthy = probe(&address, None).await.is_ok();
            unhealthy.set(unhealthy.get() + usize::from(!is_healthy));
            sleep(PROBE_INTERVAL).await;
        }
    };
    let (begun, before) = (Instant::now(), own_cpu());
    let ended = tokio::select! {
        ended = load => ended?,
        () = health => Vec::new(),
    };
    let took = begun.elapsed();
    let generator = (own_cpu() - before).div_duration_f64(took);
    Ok(Measured {
        goodput: count(&ended, End::Ok) as f64 / options.window().as_secs_f64(),
        generator,
        rejected: count(&ended, End::Rejected),
        rejected_p99: percentile(&ended, End::Rejected, 99),
        other: count(&ended, End::Other),
        unhealthy: unhealthy.get(),
        recovery: recovery(service, requests).await?,
    })
}

/// Returns the time until a call succeeds as fast as on an idle service.
async fn recovery(service: &Service, requests: &Requests) -> Result<Duration> {
    let connection = connect(service.address).await?;
    let begun = Instant::now();
    loop {
        let ended = one(&connection, requests()?).await;
        if ended.end == End::Ok && ended.latency < NORMAL {
            return Ok(begun.elapsed());
        }
    }
}
