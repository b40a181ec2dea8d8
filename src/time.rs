//! Times: `google.protobuf.Timestamp` on the wire, TIMESTAMPTZ in the database.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

/// The first and the last second that a protobuf Timestamp may say, the years
/// 1 to 9999; PostgreSQL holds all of them.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Nanoseconds in a microsecond, the resolution of TIMESTAMPTZ.
const NANOS_PER_MICRO: u32 = 1_000;

/// Reads a time, cutting it off at microseconds.
///
/// # Errors
/// The text says what is wrong with it.
pub fn from_proto(time: &Timestamp) -> Result<DateTime<Utc>, &'static str> {
    if !SECONDS.contains(&time.seconds) {
        return Err("must be within the years 1 to 9999");
    }
    u32::try_from(time.nanos)
        .ok()
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
        // Below 2,000,000,000 by chrono's own promise.
        nanos: time.timestamp_subsec_nanos().try_into().unwrap_or_default(),
    }
}
