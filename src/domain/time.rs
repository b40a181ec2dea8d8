//! Times: `google.protobuf.Timestamp` on the wire, TIMESTAMPTZ in the database.

use chrono::{DateTime, Utc};
use prost_types::{Duration, Timestamp};

/// The first and the last second that a protobuf Timestamp may say, the years
/// 1 to 9999; PostgreSQL holds all of them.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Nanoseconds in a microsecond, the resolution of TIMESTAMPTZ, and in a second.
const NANOS_PER_MICRO: u32 = 1_000;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// The longest duration, in seconds: the 10,000 years of a protobuf Duration.
const MAX_SECONDS: i64 = 315_576_000_000;
/// What is longer reaches back beyond the year 1, before which nothing starts:
/// 4000 years, to which PostgreSQL can still count back.
const ALL_TIME_MICROS: i64 = 4000 * 31_557_600 * MICROS_PER_SECOND;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MILLIS_PER_SECOND: i64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// Reads a time, cutting it off at microseconds.
///
/// # Errors
/// The text says what is wrong with it.
pub fn from_proto(time: &Timestamp) -> Result<DateTime<Utc>, &'static str> {
    if !SECONDS.contains(&time.seconds) {
        return Err("must be within the years 1 to 9999");
    }
    let nanos = u32::try_from(time.nanos).ok();
    nanos
        // chrono would take more for a leap second.
        .filter(|nanos| *nanos < NANOS_PER_SECOND)
        .and_then(|nanos| {
            DateTime::from_timestamp(time.seconds, nanos / NANOS_PER_MICRO * NANOS_PER_MICRO)
        })
        .ok_or("nanos must be from 0 to 999999999")
}

/// Whether PostgreSQL can store a time, which [`from_proto`] makes sure of.
#[must_use]
pub fn is_storable(time: DateTime<Utc>) -> bool {
    SECONDS.contains(&time.timestamp())
}

/// Writes a time.
#[must_use]
pub fn to_proto(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        // Below 1,000,000,000, as no leap second comes in.
        nanos: time.timestamp_subsec_nanos().try_into().unwrap_or_default(),
    }
}

/// A time as it is going to be stored. What is finer is no other content.
#[must_use]
pub fn truncate_to_micros(mut time: Timestamp) -> Timestamp {
    // Not below the smallest number, which is refused later.
    time.nanos = time.nanos.saturating_sub(time.nanos.rem_euclid(1_000));
    time
}

/// Reads for how long to look back, in microseconds.
///
/// # Errors
/// The text says what is wrong with it.
pub fn lookback_micros(duration: &Duration) -> Result<i64, &'static str> {
    let Duration { seconds, nanos } = *duration;
    let in_range = (0..=MAX_SECONDS).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    if !in_range || (seconds, nanos) == (0, 0) {
        return Err("must be more than 0 and at most 10000 years");
    }
    let micros = seconds * MICROS_PER_SECOND + i64::from(nanos) / i64::from(NANOS_PER_MICRO);
    Ok(micros.min(ALL_TIME_MICROS))
}

/// Reads a duration in milliseconds; what is finer is cut off. `None` if it is
/// none of protobuf's, or negative.
#[must_use]
pub fn to_millis(duration: &Duration) -> Option<i64> {
    let Duration { seconds, nanos } = *duration;
    let in_range = (0..=MAX_SECONDS).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    in_range.then(|| seconds * MILLIS_PER_SECOND + i64::from(nanos) / NANOS_PER_MILLI)
}

/// Writes a duration of milliseconds.
#[must_use]
pub fn from_millis(millis: i64) -> Duration {
    Duration {
        seconds: millis / MILLIS_PER_SECOND,
        // Below 1,000,000,000, being the rest of a second.
        nanos: i32::try_from(millis % MILLIS_PER_SECOND * NANOS_PER_MILLI).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_no_more_nanoseconds_than_it_has() {
        // The last one of a minute, of which some are longer.
        for (nanos, is_good) in [
            (0, true),
            (999_999_999, true),
            (1_000_000_000, false),
            (1_999_999_999, false),
            (-1, false),
            (i32::MAX, false),
        ] {
            let time = Timestamp { seconds: 59, nanos };
            assert_eq!(from_proto(&time).is_ok(), is_good, "{nanos}");
        }
    }

    #[test]
    fn times_are_cut_off_at_microseconds_however_odd_they_are() {
        for (nanos, cut) in [
            (0, 0),
            (999, 0),
            (1_999, 1_000),
            (-1, -1_000),
            (i32::MAX, 2_147_483_000),
            (i32::MIN, i32::MIN),
        ] {
            let time = Timestamp { seconds: 1, nanos };
            assert_eq!(truncate_to_micros(time).nanos, cut, "{nanos}");
        }
    }
}
