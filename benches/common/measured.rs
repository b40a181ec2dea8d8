//! The result of a measurement, and how the results of several rounds are aggregated.

use std::time::Duration;

/// The phases of a measurement, the same for both sides.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The warm-up, which does not count.
    pub warm_up: Duration,
    /// The phase that counts.
    pub counted: Duration,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Rows per second; for reads, workflows per second.
    pub per_second: f64,
    /// The median latency.
    pub p50: Duration,
    /// The 99th percentile of the latencies.
    pub p99: Duration,
}

impl Measured {
    /// Aggregates the calls that completed within the window. Each call counts as `rows` rows.
    /// Returns none if no call completed.
    pub fn new(mut latencies: Vec<Duration>, rows: u32, window: Window) -> Option<Self> {
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied();
        Some(Measured {
            per_second: latencies.len() as f64 * f64::from(rows) / window.counted.as_secs_f64(),
            p50: at(50)?,
            p99: at(99)?,
        })
    }
}

/// Returns the median of each field by itself.
pub fn median_of(rounds: &[Measured]) -> Option<Measured> {
    Some(Measured {
        per_second: median(rounds.iter().map(|round| round.per_second), f64::total_cmp)?,
        p50: median(rounds.iter().map(|round| round.p50), Ord::cmp)?,
        p99: median(rounds.iter().map(|round| round.p99), Ord::cmp)?,
    })
}

/// Returns the median; of an even number of values, the lower of the two in the middle.
pub fn median<T: Copy>(
    values: impl Iterator<Item = T>,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(compare);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
