//! Jitter for retries.

use std::time::Duration;

/// Returns a random duration between half of `pause` and all of it, so that clients that failed
/// together do not retry together.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
