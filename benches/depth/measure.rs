//! Measuring a case on both sides.

use std::time::{Duration, Instant};

use crate::{
    Result,
    case::Case,
    options::Options,
    side::{Called, Side},
};

/// How many calls do not count: enough for PostgreSQL to have settled on a plan
/// for a statement, which takes it five.
const WARM_UP: u64 = 20;

/// What one side of a case did.
#[derive(Debug)]
pub struct Measured {
    /// Half of the calls were faster.
    pub p50: Duration,
    /// All but one in a hundred calls were faster.
    pub p99: Duration,
    /// How many rows an answer had on average.
    pub rows: f64,
}

/// A case on both sides.
pub struct Compared {
    /// The RPC.
    pub method: &'static str,
    /// What is special about the case.
    pub title: &'static str,
    /// Whether it counts what grows.
    pub grows: bool,
    /// How many calls there were on each side.
    pub calls: usize,
    /// The small database.
    pub small: Measured,
    /// The deep one.
    pub deep: Measured,
}

/// Calls in turns, one caller, so that whatever else happens on the machine
/// happens to both sides.
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
        // What is slow has no caches to warm.
        let is_slow = begun.elapsed() > options.patience();
        if number >= WARM_UP || is_slow {
            of_small.push(from_small);
            of_deep.push(from_deep);
        }
        if is_slow {
            break;
        }
    }
    let calls = of_small.len();
    let sums = sum_up(of_small).zip(sum_up(of_deep));
    let (small, deep) = sums.ok_or("no call counted")?;
    Ok(Compared {
        method: small_case.method,
        title: small_case.title,
        grows: small_case.grows,
        calls,
        small,
        deep,
    })
}

fn sum_up(mut calls: Vec<Called>) -> Option<Measured> {
    calls.sort_unstable_by_key(|call| call.took);
    let at = |percent: usize| calls.get(calls.len() * percent / 100).map(|it| it.took);
    let rows: usize = calls.iter().map(|call| call.rows).sum();
    Some(Measured {
        p50: at(50)?,
        p99: at(99)?,
        rows: rows as f64 / calls.len() as f64,
    })
}
