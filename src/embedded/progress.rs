//! Shows the progress of a slow step.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish};

/// Draws a spinner with `message` on standard error until it is dropped. Draws nothing without a
/// terminal; the log has the same message.
pub(super) fn spinner(message: &str) -> ProgressBar {
    /// Looks smooth and costs nothing.
    const TICK: Duration = Duration::from_millis(100);
    let spinner = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    spinner.set_message(message.to_owned());
    spinner.enable_steady_tick(TICK);
    spinner
}
