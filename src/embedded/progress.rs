//! Shows that a slow step is under way.

use std::time::Duration;

use indicatif::ProgressBar;

/// Draws a spinner with `message` on standard error; draws nothing when that is no terminal.
pub(super) fn spinner(message: &str) -> ProgressBar {
    /// Looks smooth and costs nothing.
    const TICK: Duration = Duration::from_millis(100);
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(message.to_owned());
    spinner.enable_steady_tick(TICK);
    spinner
}
