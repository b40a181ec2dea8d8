//! How long a call may take.

use std::time::Duration;

use http::HeaderMap;
#[cfg(test)]
use http::HeaderValue;

/// tonic holds calls to `grpc-timeout` too, but answers CANCELLED. We are one
/// tick of tokio's clock before it, and answer DEADLINE_EXCEEDED.
const TICK: Duration = Duration::from_millis(1);

/// How long a call may take: as long as its caller waits, and at most `longest`.
pub(super) fn patience(headers: &HeaderMap, longest: Duration) -> Duration {
    asked_timeout(headers).map_or(longest, |asked| asked.saturating_sub(TICK).min(longest))
}

/// Reads `grpc-timeout`: up to 8 digits and a unit.
fn asked_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
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
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(asked_timeout(&headers), expected, "{text:?}");
        }
    }
}
