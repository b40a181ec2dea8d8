//! How long a call may take.

use std::time::Duration;

use http::HeaderMap;

use crate::error::{Error, Result};

/// tonic holds calls to `grpc-timeout` too, but answers CANCELLED. We are one
/// tick of tokio's clock before it, and answer DEADLINE_EXCEEDED.
const TICK: Duration = Duration::from_millis(1);

/// The header by which callers say for how long they wait.
const HEADER: &str = "grpc-timeout";

/// How long a call may take: as long as its caller waits, and at most `longest`.
///
/// # Errors
/// [`Error::InvalidRequest`]: who says it wrongly does not wait for as long as it takes.
pub(super) fn patience(headers: &HeaderMap, longest: Duration) -> Result<Duration> {
    let mut all = headers.get_all(HEADER).iter();
    let asked = match (all.next(), all.next()) {
        (None, _) => return Ok(longest),
        (Some(value), None) => value.to_str().ok().and_then(read),
        (Some(_), Some(_)) => None,
    };
    let rule = "must be there once, 1 to 8 digits and one of H, M, S, m, u and n";
    let asked = asked.ok_or_else(|| Error::invalid_field(HEADER, rule))?;
    Ok(asked.saturating_sub(TICK).min(longest))
}

/// Reads up to 8 digits and a unit.
fn read(text: &str) -> Option<Duration> {
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
    fn the_timeout_is_read_in_every_unit_and_nothing_else() {
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
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_timeout_that_is_none_is_refused_and_the_longest_is_ours() {
        let longest = Duration::from_secs(30);
        let patience = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_static(value));
            }
            super::patience(&headers, longest).ok()
        };
        assert_eq!(patience(&[]), Some(longest));
        assert_eq!(patience(&["2H"]), Some(longest));
        assert_eq!(patience(&["1S"]), Some(Duration::from_millis(999)));
        assert_eq!(patience(&["-1S"]), None);
        assert_eq!(patience(&["1S", "0n"]), None);
    }
}
