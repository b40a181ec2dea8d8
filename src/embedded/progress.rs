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

/// The tables that a program copies: a spinner on a terminal, else lines of the log.
pub(super) struct Progress {
    action: &'static str,
    spinner: ProgressBar,
}

impl Progress {
    pub(super) fn new(action: &'static str) -> Self {
        Self {
            action,
            spinner: spinner(action),
        }
    }

    /// Shows that a table begins.
    pub(super) fn table(&self, table: &str) {
        match self.spinner.is_hidden() {
            true => tracing::info!(table, "{}", self.action),
            false => self.spinner.set_message(format!("{} {table}", self.action)),
        }
    }

    /// Logs that the last table takes long. On a terminal the spinner moves.
    pub(super) fn go_on(&self) {
        if self.spinner.is_hidden() {
            let elapsed_s = self.spinner.elapsed().as_secs();
            tracing::info!(elapsed_s, "still {}", self.action);
        }
    }
}
