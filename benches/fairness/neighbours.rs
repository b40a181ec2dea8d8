//! A tenant beside one that floods the service.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    Options, Result,
    load::{End, Ended, Requests, closed, count, median, percentile},
    requests::Tenant,
};

/// The callers of B, the tenant that is measured.
pub const CALLERS: usize = 4;

/// Tenant A's floods: the title, and the number of callers.
const FLOODS: [(&str, usize); 3] = [
    ("lists of 1000 rows", 32),
    ("batches of 1000 steps", 16),
    ("single steps", 128),
];

/// Prints the latencies of B beside each flood, as ratios of those beside a flood of another
/// service.
pub async fn measure(same: SocketAddr, other: SocketAddr, options: &Options) -> Result<()> {
    println!("| tenant A floods with | B's p50, ratio | p99, ratio | B's failed calls |");
    println!("|---|--:|--:|--:|");
    for (title, callers) in FLOODS {
        let (mut p50, mut p99, mut failed) = (Vec::new(), Vec::new(), 0);
        for round in 1..=options.rounds {
            eprintln!("{title}, round {round} of {}", options.rounds);
            let beside_other = beside(other, same, title, callers, options).await?;
            let beside_same = beside(same, same, title, callers, options).await?;
            let ratio = |percent| {
                let [same, other] = [&beside_same, &beside_other];
                percentile(same, End::Ok, percent).div_duration_f64(percentile(
                    other,
                    End::Ok,
                    percent,
                ))
            };
            p50.push(ratio(50));
            p99.push(ratio(99));
            failed += beside_same.len() - count(&beside_same, End::Ok);
        }
        println!(
            "| {title}, {callers} callers | {:.1} | {:.1} | {failed} |",
            median(p50),
            median(p99)
        );
    }
    Ok(())
}

/// Returns B's calls to one service while A floods a service.
async fn beside(
    flooded: SocketAddr,
    measured: SocketAddr,
    title: &str,
    callers: usize,
    options: &Options,
) -> Result<Vec<Ended>> {
    let flooding = flood(title, Tenant::new(flooded, 40).await?);
    let tenant = Tenant::new(measured, 0).await?;
    let window = options.window();
    let flood = closed(flooded, callers, flooding, window);
    let calls = closed(measured, CALLERS, singles(tenant), window);
    let (_, ended) = tokio::try_join!(flood, calls)?;
    Ok(ended)
}

fn flood(title: &str, tenant: Tenant) -> Requests {
    match title {
        "single steps" => Arc::new(move || tenant.step()),
        "batches of 1000 steps" => Arc::new(move || tenant.batch(40)),
        _ => Arc::new(move || tenant.list()),
    }
}

/// Returns single calls, reads and writes in turns.
pub fn singles(tenant: Tenant) -> Requests {
    let turn = AtomicUsize::new(0);
    Arc::new(move || match turn.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => tenant.get(),
        _ => tenant.step(),
    })
}
