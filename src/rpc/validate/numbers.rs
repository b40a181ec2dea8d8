//! Checks of numbers, times and durations.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use prost_types::{Duration, Timestamp};

use super::Validator;
use crate::{domain::time, util::counted::counted};

impl Validator {
    /// Checks a time to store, or an exclusive lower bound; it may be unset.
    pub fn optional_time(
        &mut self,
        field: &str,
        time: Option<&Timestamp>,
    ) -> Option<DateTime<Utc>> {
        time.map(|time| self.parsed(field, time::from_proto(time)))
    }

    /// Checks an exclusive upper bound; it may be unset.
    pub fn optional_upper_bound(
        &mut self,
        field: &str,
        bound: Option<&Timestamp>,
    ) -> Option<DateTime<Utc>> {
        bound.map(|bound| self.parsed(field, time::upper_bound_from_proto(bound)))
    }

    /// Checks how far to look back; returns microseconds. It may be unset.
    pub fn optional_within(&mut self, field: &str, within: Option<Duration>) -> Option<i64> {
        within.map(|within| self.parsed(field, time::lookback_micros(&within)))
    }

    /// Checks a count, a duration or an order, which must not be negative.
    pub fn count<T: Copy + Default + PartialOrd + Display>(&mut self, field: &str, count: T) -> T {
        self.optional_count(field, Some(count)).unwrap_or_default()
    }

    /// Checks a count, a duration or an order, which may be unset but not negative.
    pub fn optional_count<T: Copy + Default + PartialOrd + Display>(
        &mut self,
        field: &str,
        count: Option<T>,
    ) -> Option<T> {
        if let Some(count) = count.filter(|count| *count < T::default()) {
            self.violation(field, format!("must not be negative, got {count}"));
        }
        count
    }

    /// Checks the maximum number of rows of an answer; 0 means `default`, and a number
    /// over the limit means the limit (AIP-158).
    pub fn page_size(&mut self, field: &str, size: i32, default: i32) -> i64 {
        if size < 0 {
            self.violation(field, format!("must not be negative, got {size}"));
        }
        let size = if size == 0 { default } else { size };
        size.min(self.limits.page_rows).into()
    }

    /// Checks the number of items of a batch.
    pub fn item_count(&mut self, field: &str, count: usize) {
        let max = self.limits.batch_items;
        if count == 0 {
            self.violation(field, "must have at least 1 item");
        } else if count > max {
            let max = counted(max, "item", "items");
            self.violation(field, format!("must have at most {max}, got {count}"));
        }
    }
}
