//! The rounds of one side of a comparison.

use std::collections::BTreeMap;

use crate::measured::{Measured, median_of};

/// The rounds of one side, by the number of callers or connections.
#[derive(Debug, Default)]
pub struct Rounds(BTreeMap<usize, Vec<Measured>>);

impl Rounds {
    /// Adds a measurement.
    pub fn add(&mut self, callers: usize, measured: Measured) {
        self.0.entry(callers).or_default().push(measured);
    }

    /// Returns all measurements with this number of callers.
    pub fn with(&self, callers: usize) -> &[Measured] {
        self.0.get(&callers).map_or(&[], Vec::as_slice)
    }

    /// Returns the medians of the rounds for each number of callers.
    pub fn medians(&self) -> impl Iterator<Item = (usize, Measured)> {
        self.0
            .iter()
            .filter_map(|(callers, rounds)| Some((*callers, median_of(rounds)?)))
    }

    /// Returns the number of callers with the best median rate.
    pub fn best(&self) -> Option<usize> {
        let best = self
            .medians()
            .max_by(|(_, a), (_, b)| a.per_second.total_cmp(&b.per_second));
        best.map(|(callers, _)| callers)
    }
}
