//! A rate limit that may go into debt.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// The burst that a rate allows: so much of it at once, after a pause.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket, in the form of the generic cell rate algorithm. What is taken need not be in the
/// bucket: a batch that is larger than the burst is admitted, and the calls after it wait for
/// longer. The rate may change at any time: a higher one shortens what is left of the wait.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When the bucket is full again; `None` if nothing was ever taken.
    full_at: Option<Instant>,
    /// The rate at which it is.
    rate: Option<NonZeroU32>,
}

impl Bucket {
    /// Returns the time until there is something in the bucket.
    pub(super) fn wait(&self, rate: NonZeroU32, now: Instant) -> Duration {
        let one = Duration::from_secs(1) / rate.get();
        self.missing_at(rate, now)
            .saturating_sub(BURST.saturating_sub(one))
    }

    /// Takes `count` out of the bucket.
    pub(super) fn take(&mut self, count: u32, rate: NonZeroU32, now: Instant) {
        let time = Duration::from_secs(count.into()) / rate.get();
        let full_at = (now + self.missing_at(rate, now)).checked_add(time);
        self.full_at = full_at.or(self.full_at);
        self.rate = Some(rate);
    }

    /// Returns the time until the bucket is full at a rate.
    fn missing_at(&self, rate: NonZeroU32, now: Instant) -> Duration {
        let missing = self.missing(now);
        match self.rate.filter(|old| *old < rate) {
            Some(old) => missing.mul_f64(f64::from(old.get()) / f64::from(rate.get())),
            None => missing,
        }
    }

    /// Returns the time until the bucket is full at the rate of before.
    fn missing(&self, now: Instant) -> Duration {
        let full_at = self.full_at.unwrap_or(now);
        full_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32) -> NonZeroU32 {
        NonZeroU32::new(per_second).unwrap()
    }

    /// Returns how many calls a bucket admits at a time.
    fn admitted(bucket: &mut Bucket, per_second: u32, now: Instant) -> u32 {
        let mut count = 0;
        while bucket.wait(rate(per_second), now).is_zero() {
            bucket.take(1, rate(per_second), now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_second_s_worth_is_admitted_at_once_and_then_one_after_another() {
        for per_second in [1, 3, 7, 1000] {
            let (mut bucket, now) = (Bucket::default(), Instant::now());
            assert_eq!(admitted(&mut bucket, per_second, now), per_second);
            let wait = bucket.wait(rate(per_second), now);
            assert!(wait <= Duration::from_secs(1) / per_second, "{wait:?}");
            assert_eq!(admitted(&mut bucket, per_second, now + wait), 1);
        }
    }

    #[test]
    fn after_a_batch_that_is_larger_than_the_burst_calls_wait_until_the_rate_has_caught_up() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        bucket.take(1000, rate(100), now);
        let wait = bucket.wait(rate(100), now);
        assert_eq!(wait, Duration::from_millis(9010));
        assert_eq!(admitted(&mut bucket, 100, now + wait), 1);
    }

    #[test]
    fn a_pause_saves_no_more_than_the_burst() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        admitted(&mut bucket, 5, now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(admitted(&mut bucket, 5, later), 5);
    }

    #[test]
    fn a_higher_rate_counts_from_now_on() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        admitted(&mut bucket, 1, now);
        let later = now + Duration::from_millis(100);
        assert!(bucket.wait(rate(1), later) > Duration::ZERO);
        assert_eq!(admitted(&mut bucket, 100, later), 99);
    }

    #[test]
    fn a_higher_rate_shortens_a_debt_and_a_lower_one_does_not_raise_it() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        bucket.take(1000, rate(10), now);
        let wait = bucket.wait(rate(10_000), now);
        assert!(wait < Duration::from_millis(1), "{wait:?}");
        assert_eq!(
            bucket.wait(rate(1), now),
            bucket.wait(rate(10), now) - Duration::from_millis(900) + Duration::from_millis(1800)
        );
    }
}
