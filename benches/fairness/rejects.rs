//! What a rejected call costs.

use std::{ffi::OsStr, sync::Arc, time::Duration};

use crate::{
    Options, Result,
    cluster::Cluster,
    load::{End, Requests, closed, count, median},
    requests::Tenant,
    service::Service,
    start,
};

/// The callers of the closed loop.
const CALLERS: usize = 256;

/// Prints the CPU time of a rejected call, as a share of that of a call that succeeds. PostgreSQL's
/// time is left out, though only calls that succeed need it.
pub async fn measure(cluster: &Cluster, service: &Service, options: &Options) -> Result<()> {
    println!("| rejected by | CPU of a reject | rejects per call that succeeds |");
    println!("|---|--:|--:|");
    let kinds = [
        ("the limit of calls in progress", "--max-requests"),
        ("the quota of a namespace", "--max-namespace-rate"),
    ];
    for (number, (kind, setting)) in kinds.into_iter().enumerate() {
        let setting = [setting, "1"].map(OsStr::new);
        let limited = start(cluster, &format!("limited_{number}"), &setting).await?;
        let (mut cpu, mut rate) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            eprintln!("{kind}, round {round} of {}", options.rounds);
            let call = cost(service, End::Ok, options.window()).await?;
            let reject = cost(&limited, End::Rejected, options.window()).await?;
            cpu.push(reject.cpu / call.cpu);
            rate.push(reject.rate / call.rate);
        }
        limited.stop().await?;
        println!(
            "| {kind} | {:.0} % | {:.1} |",
            median(cpu) * 100.0,
            median(rate)
        );
    }
    Ok(())
}

/// What a call costs.
struct Cost {
    /// The CPU time of the service, in seconds.
    cpu: f64,
    /// Such calls per second.
    rate: f64,
}

/// Returns the cost of the calls that end in a way, if nearly all do.
async fn cost(service: &Service, end: End, window: Duration) -> Result<Cost> {
    let tenant = Tenant::new(service.address, 0).await?;
    let requests: Requests = Arc::new(move || tenant.step());
    let before = service.cpu_time().unwrap_or_default();
    let ended = closed(service.address, CALLERS, requests, window).await?;
    let took = service.cpu_time().unwrap_or_default() - before;
    let calls = count(&ended, end);
    if calls * 10 < ended.len() * 9 {
        return Err(format!("only {calls} of {} calls ended {end:?}", ended.len()).into());
    }
    Ok(Cost {
        cpu: took.as_secs_f64() / calls as f64,
        rate: calls as f64 / window.as_secs_f64(),
    })
}
