//! The deadline of a call.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::domain::error::{Error, Result};

/// tonic enforces `grpc-timeout` too, but answers CANCELLED. Our timeout ends one tick of
/// tokio's clock earlier and answers DEADLINE_EXCEEDED.
const TICK: Duration = Duration::from_millis(1);

/// The header with the caller's timeout.
const HEADER: &str = "grpc-timeout";

/// The time at which a call ends. Each request has it as an extension.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// Returns how long a call may take: the caller's timeout, but at most `max_duration`.
///
/// # Errors
/// [`Error::InvalidRequest`] if the header is malformed or repeated, instead of reading it
/// as "no deadline".
pub(super) fn timeout(headers: &HeaderMap, max_duration: Duration) -> Result<Duration> {
    let mut all = headers.get_all(HEADER).iter();
    let timeout = match (all.next(), all.next()) {
        (None, _) => return Ok(max_duration),
        (Some(value), None) => value.to_str().ok().and_then(parse),
        (Some(_), Some(_)) => None,
    };
    let rule = "must occur once and be 1 to 8 digits and one of the units H, M, S, m, u, n";
    let timeout = timeout.ok_or_else(|| Error::invalid_field(HEADER, rule))?;
    Ok(timeout.saturating_sub(TICK).min(max_duration))
}

/// Parses up to 8 digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_unit_is_parsed_and_nothing_else() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("123456789S", None),
            ("5", None),
            ("S", None),
            ("", None),
            ("5x", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1 S", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_malformed_timeout_is_rejected_and_a_long_one_is_capped() {
        let longest = Duration::from_secs(30);
        let returned = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_static(value));
            }
            timeout(&headers, longest).ok()
        };
        assert_eq!(returned(&[]), Some(longest));
        assert_eq!(returned(&["2H"]), Some(longest));
        assert_eq!(returned(&["1S"]), Some(Duration::from_millis(999)));
        assert_eq!(returned(&["-1S"]), None);
        assert_eq!(returned(&["1S", "0n"]), None);
    }
}
