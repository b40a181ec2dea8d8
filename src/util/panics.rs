//! Panics of tasks. Each is a bug, which must end neither the process nor other tasks.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use prometheus::IntCounter;

/// The pause before a task that panicked starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Runs `work`. Counts a panic and logs its task, and returns `None` after one. The hook of
/// the telemetry logs its message.
pub async fn contain<T>(
    task: &'static str,
    panics: &IntCounter,
    work: impl Future<Output = T>,
) -> Option<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => Some(result),
        Err(_) => {
            panics.inc();
            tracing::error!(task, "task panicked");
            None
        }
    }
}

/// Runs a task until it returns. Starts it again after a panic.
pub async fn keep_running<F: Future<Output = ()>>(
    task: &'static str,
    panics: &IntCounter,
    start: impl Fn() -> F,
) {
    // The start itself may panic, too.
    while contain(task, panics, async { start().await })
        .await
        .is_none()
    {
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_starts_again() {
        let panics = IntCounter::new("panics", "Panics.").unwrap();
        let starts = Cell::new(0);
        keep_running("test", &panics, || {
            starts.set(starts.get() + 1);
            assert_ne!(starts.get(), 1, "a fault at the start");
            let number = starts.get();
            async move { assert_ne!(number, 2, "a fault while it runs") }
        })
        .await;
        assert_eq!((starts.get(), panics.get()), (3, 2));
    }
}
