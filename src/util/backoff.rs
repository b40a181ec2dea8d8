//! Jitter for retries.

use std::time::Duration;

/// Returns a random duration between half of `pause` and all of it, so that clients that failed
/// together do not retry together.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The most that [`spread`] adds. Longer delays gain nothing from more.
const MAX_SPREAD: Duration = Duration::from_secs(1);

/// Returns a random duration between `least` and a quarter more, at most a second more, in whole
/// milliseconds. Clients that are told to wait for `least` at the same time do not return at the same
/// time.
#[must_use]
pub fn spread(least: Duration) -> Duration {
    let most = (least / 4).min(MAX_SPREAD);
    let spread = least.saturating_add(most.mul_f64(fastrand::f64()));
    let millis = spread.as_micros().div_ceil(1000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_wait_for_different_times_none_of_them_too_short_or_too_long() {
        for (least, longest) in [(2000, 2500), (4000, 5000), (200_000, 201_000)] {
            let [least, longest] = [least, longest].map(Duration::from_millis);
            let waits: std::collections::BTreeSet<_> = (0..100).map(|_| spread(least)).collect();
            assert!(waits.len() > 50, "{waits:?}");
            assert!(
                waits.iter().all(|it| (least..=longest).contains(it)),
                "{waits:?}"
            );
        }
        assert!(spread(Duration::from_micros(1)) >= Duration::from_millis(1));
    }
}
