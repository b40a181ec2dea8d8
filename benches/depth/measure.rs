//! Measures a case on both sides.

use std::time::{Duration, Instant};

use crate::{
    Result,
    case::Case,
    options::Options,
    side::{Side, TimedCall},
};

/// The number of warm-up calls, which do not count. PostgreSQL may switch to a generic plan after
/// the fifth execution of a statement.
const WARM_UP: u64 = 20;

/// The result of one side.
#[derive(Debug)]
pub struct Measured {
    /// The median latency.
    pub p50: Duration,
    /// The 99th percentile of the latencies.
    pub p99: Duration,
    /// The average number of rows per response.
    pub rows: f64,
}

/// The results of a case on both sides.
pub struct Compared {
    /// The RPC.
    pub method: &'static str,
    /// How the case differs from others of the RPC.
    pub title: &'static str,
    /// Whether the read aggregates rows whose number grows with the database.
    pub scales_with_data: bool,
    /// The number of measured calls on each side.
    pub calls: usize,
    /// The small database.
    pub small: Measured,
    /// The deep database.
    pub deep: Measured,
}

/// Calls both sides in turns with one caller, so that noise of the machine affects both alike.
pub async fn compare(
    (small, small_case): (&Side, &Case),
    (deep, deep_case): (&Side, &Case),
    options: &Options,
) -> Result<Compared> {
    let small_token = small.page_token(small_case).await?;
    let deep_token = deep.page_token(deep_case).await?;
    let (mut of_small, mut of_deep) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for number in 0..WARM_UP + options.calls {
        let from_small = small.call(small_case, number, &small_token).await?;
        let from_deep = deep.call(deep_case, number, &deep_token).await?;
        // A slow read gets no warm-up, because it may reach the time limit within it.
        let is_slow = begun.elapsed() > options.time_limit();
        if number >= WARM_UP || is_slow {
            of_small.push(from_small);
            of_deep.push(from_deep);
        }
        if is_slow {
            break;
        }
    }
    let calls = of_small.len();
    let results = aggregate(of_small).zip(aggregate(of_deep));
    let (small, deep) = results.ok_or("no call completed")?;
    Ok(Compared {
        method: small_case.method,
        title: small_case.title,
        scales_with_data: small_case.scales_with_data,
        calls,
        small,
        deep,
    })
}

fn aggregate(mut calls: Vec<TimedCall>) -> Option<Measured> {
    calls.sort_unstable_by_key(|call| call.latency);
    let at = |percent: usize| calls.get(calls.len() * percent / 100).map(|it| it.latency);
    let rows: usize = calls.iter().map(|call| call.rows).sum();
    Some(Measured {
        p50: at(50)?,
        p99: at(99)?,
        rows: rows as f64 / calls.len() as f64,
    })
}
