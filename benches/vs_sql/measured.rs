//! What a measurement says, and how the rounds of it are put together.

use std::{collections::BTreeMap, time::Duration};

use crate::options::Window;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Rows in a second; for reads, workflows.
    pub per_second: f64,
    /// Half of the calls were faster.
    pub p50: Duration,
    /// All but one in a hundred calls were faster.
    pub p99: Duration,
}

impl Measured {
    /// Sums up the calls that ended in the window, each of which was worth `rows`.
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

/// The rounds of one side, by the number of callers or connections.
#[derive(Debug, Default)]
pub struct Rounds(BTreeMap<usize, Vec<Measured>>);

impl Rounds {
    /// Adds a measurement.
    pub fn add(&mut self, callers: usize, measured: Measured) {
        self.0.entry(callers).or_default().push(measured);
    }

    /// All measurements with so many callers.
    pub fn with(&self, callers: usize) -> &[Measured] {
        self.0.get(&callers).map_or(&[], Vec::as_slice)
    }

    /// The medians of the rounds, for each number of callers.
    pub fn medians(&self) -> impl Iterator<Item = (usize, Measured)> {
        self.0
            .iter()
            .filter_map(|(callers, rounds)| Some((*callers, median_of(rounds)?)))
    }

    /// The number of callers with the best median rate.
    pub fn best(&self) -> Option<usize> {
        let best = self
            .medians()
            .max_by(|(_, a), (_, b)| a.per_second.total_cmp(&b.per_second));
        best.map(|(callers, _)| callers)
    }
}

/// The medians of a few measurements, each figure by itself.
pub fn median_of(rounds: &[Measured]) -> Option<Measured> {
    Some(Measured {
        per_second: median(rounds.iter().map(|round| round.per_second), f64::total_cmp)?,
        p50: median(rounds.iter().map(|round| round.p50), Ord::cmp)?,
        p99: median(rounds.iter().map(|round| round.p99), Ord::cmp)?,
    })
}

/// The middle one; of an even number the lower of the two.
pub fn median<T: Copy>(
    values: impl Iterator<Item = T>,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(compare);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
