//! Times: `google.protobuf.Timestamp` on the wire, TIMESTAMPTZ in the database.

use chrono::{DateTime, TimeDelta, Utc};
use prost_types::{Duration, Timestamp};

/// Range of a protobuf Timestamp, in seconds: the years 1 to 9999. PostgreSQL can store
/// all of it.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Nanoseconds per microsecond, which is the resolution of TIMESTAMPTZ.
const NANOS_PER_MICRO: u32 = 1_000;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Length of a year in seconds: 365.25 days, as in the limit of a protobuf Duration.
pub const YEAR_SECONDS: i64 = 31_557_600;
/// Maximum length of a duration, in seconds: the 10,000 years of a protobuf Duration.
const MAX_SECONDS: i64 = 10_000 * YEAR_SECONDS;
/// Maximum lookback, in microseconds: 4000 years. It reaches back beyond the year 1, so a
/// longer one finds no more rows, and PostgreSQL can still subtract it from now().
const MAX_LOOKBACK_MICROS: i64 = 4000 * YEAR_SECONDS * MICROS_PER_SECOND;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MILLIS_PER_SECOND: i64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// Converts a timestamp, truncated to microseconds. For a stored time or an exclusive lower
/// bound.
///
/// # Errors
/// The rule that the timestamp breaks, with its value.
pub fn from_proto(time: &Timestamp) -> Result<DateTime<Utc>, String> {
    let Timestamp { seconds, nanos } = *time;
    if !SECONDS.contains(&seconds) {
        let rule = "must be within the years 1 to 9999";
        return Err(format!("{rule}, got {seconds} seconds since 1970"));
    }
    u32::try_from(nanos)
        .ok()
        // chrono accepts more nanoseconds, for a leap second.
        .filter(|nanos| *nanos < NANOS_PER_SECOND)
        .and_then(|nanos| {
            DateTime::from_timestamp(seconds, nanos / NANOS_PER_MICRO * NANOS_PER_MICRO)
        })
        .ok_or_else(|| format!("must have nanos from 0 to 999999999, got {nanos}"))
}

/// Converts an exclusive upper bound, rounded up to microseconds. Stored times have whole
/// microseconds, so they are below the rounded bound exactly if they are below the given one.
///
/// # Errors
/// The rule that the timestamp breaks, with its value.
pub fn upper_bound_from_proto(time: &Timestamp) -> Result<DateTime<Utc>, String> {
    let bound = from_proto(time)?;
    let is_rounded = u32::try_from(time.nanos).is_ok_and(|nanos| nanos % NANOS_PER_MICRO != 0);
    Ok(bound + TimeDelta::microseconds(is_rounded.into()))
}

/// Returns whether PostgreSQL can store a time. [`from_proto`] returns only such times.
#[must_use]
pub fn is_storable(time: DateTime<Utc>) -> bool {
    SECONDS.contains(&time.timestamp())
}

/// Converts a time to a timestamp.
#[must_use]
pub fn to_proto(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        // Below 1,000,000,000, because from_proto rejects leap seconds.
        nanos: time.timestamp_subsec_nanos().try_into().unwrap_or_default(),
    }
}

/// Truncates a timestamp to what is stored, so that finer digits do not change the digest
/// of a request.
#[must_use]
pub fn truncate_to_micros(mut time: Timestamp) -> Timestamp {
    // Invalid nanos stay, because from_proto rejects them with their value.
    if u32::try_from(time.nanos).is_ok_and(|nanos| nanos < NANOS_PER_SECOND) {
        time.nanos -= time.nanos % 1_000;
    }
    time
}

/// Converts a lookback to microseconds, rounded up, and at most [`MAX_LOOKBACK_MICROS`]. A
/// stored time is after `now - lookback` exactly if it is after the time that the rounded
/// lookback gives.
///
/// # Errors
/// The rule that the duration breaks, with its value.
pub fn lookback_micros(duration: &Duration) -> Result<i64, String> {
    let Duration { seconds, nanos } = *duration;
    if !is_valid(duration) || (seconds, nanos) == (0, 0) {
        let rule = "must be more than 0 and at most 10000 years";
        return Err(format!("{rule}, got {}", describe(duration)));
    }
    let micros = i64::from(nanos.unsigned_abs().div_ceil(NANOS_PER_MICRO));
    let micros = seconds * MICROS_PER_SECOND + micros;
    Ok(micros.min(MAX_LOOKBACK_MICROS))
}

/// Converts a duration to milliseconds and truncates finer digits. Returns `None` if the
/// duration is negative or not a valid protobuf Duration.
#[must_use]
pub fn to_millis(duration: &Duration) -> Option<i64> {
    let Duration { seconds, nanos } = *duration;
    is_valid(duration).then(|| seconds * MILLIS_PER_SECOND + i64::from(nanos) / NANOS_PER_MILLI)
}

/// Formats a duration, valid or not, for a violation.
#[must_use]
pub fn describe(duration: &Duration) -> String {
    let Duration { seconds, nanos } = duration;
    match nanos {
        0 => format!("{seconds} s"),
        _ => format!("{seconds} s and {nanos} ns"),
    }
}

/// Returns whether a duration is a valid protobuf Duration and not negative.
fn is_valid(duration: &Duration) -> bool {
    (0..=MAX_SECONDS).contains(&duration.seconds) && (0..1_000_000_000).contains(&duration.nanos)
}

/// Converts milliseconds to a duration.
#[must_use]
pub fn from_millis(millis: i64) -> Duration {
    Duration {
        seconds: millis / MILLIS_PER_SECOND,
        // Below 1,000,000,000, because it is the rest of a second.
        nanos: i32::try_from(millis % MILLIS_PER_SECOND * NANOS_PER_MILLI).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_second_is_rejected() {
        // The last second of a minute, where chrono accepts a leap second.
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
    fn an_upper_bound_is_rounded_up_to_microseconds() {
        for (nanos, micros) in [
            (0, 0),
            (1, 1),
            (1_000, 1),
            (1_001, 2),
            (999_999_999, 1_000_000),
        ] {
            let bound = upper_bound_from_proto(&Timestamp { seconds: 0, nanos });
            assert_eq!(bound.unwrap().timestamp_micros(), micros, "{nanos}");
        }
        let last = Timestamp {
            seconds: *SECONDS.end(),
            nanos: 999_999_999,
        };
        let after_all = upper_bound_from_proto(&last).unwrap();
        assert!(after_all > from_proto(&last).unwrap());
    }

    /// A row that was stored just now is within a lookback of a nanosecond.
    #[test]
    fn a_lookback_is_rounded_up_to_microseconds() {
        for (nanos, micros) in [
            (1, 1),
            (999, 1),
            (1_000, 1),
            (1_001, 2),
            (999_999_999, 1_000_000),
        ] {
            let lookback = lookback_micros(&Duration { seconds: 0, nanos });
            assert_eq!(lookback, Ok(micros), "{nanos}");
        }
    }

    #[test]
    fn valid_timestamps_are_truncated_to_microseconds_and_others_are_kept() {
        for (nanos, cut) in [
            (0, 0),
            (999, 0),
            (1_999, 1_000),
            (999_999_999, 999_999_000),
            (-1, -1),
            (i32::MAX, i32::MAX),
            (i32::MIN, i32::MIN),
        ] {
            let time = Timestamp { seconds: 1, nanos };
            assert_eq!(truncate_to_micros(time).nanos, cut, "{nanos}");
        }
    }
}
