//! Pauses in work that takes long, so that other tasks of the thread run meanwhile.

use std::time::Duration;

use tokio::{task::yield_now, time::Instant};

/// How long work goes on without a pause. Each pause lasts until the tasks that wait for the thread
/// have run, so a busy service makes few of them.
const SLICE_TIME: Duration = Duration::from_millis(1);

/// Size of the rows that are converted or encoded without a look at the time, in bytes. It takes some
/// hundred microseconds: reading one MiB of JSON takes five milliseconds.
pub const SLICE_BYTES: usize = 64 * 1024;

/// The time since the last pause.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
}

impl Default for Pace {
    /// Begins work.
    fn default() -> Self {
        Pace {
            since: Instant::now(),
        }
    }
}

impl Pace {
    /// Lets other tasks run, if the work has gone on for 1 ms. Call it after each row or slice.
    pub async fn pause_if_due(&mut self) {
        if self.since.elapsed() >= SLICE_TIME {
            yield_now().await;
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_pauses_after_a_millisecond_and_not_before() {
        let mut pace = Pace::default();
        advance(Duration::from_micros(999)).await;
        assert!(pace.pause_if_due().now_or_never().is_some(), "it goes on");
        advance(Duration::from_micros(1)).await;
        assert!(pace.pause_if_due().now_or_never().is_none(), "it pauses");
        pace.pause_if_due().await;
        assert!(pace.pause_if_due().now_or_never().is_some(), "it goes on");
    }
}
