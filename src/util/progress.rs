//! Shows the progress of a slow step: a bar or a spinner on a terminal, else lines of the log.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// A progress bar on standard error, which is removed when it is dropped. Without a terminal it
/// draws nothing.
pub struct Bar(ProgressBar);

impl Bar {
    /// Draws an empty bar.
    #[must_use]
    pub fn new(message: &str) -> Bar {
        /// Looks smooth and costs nothing.
        const TICK: Duration = Duration::from_millis(100);
        let style = ProgressStyle::with_template("{spinner} {bar:20} {percent:>3} % {wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(100).with_finish(ProgressFinish::AndClear);
        bar.set_style(style);
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    /// Returns whether it draws nothing, because standard error is not a terminal.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Shows how much is done, from 0 to 100, and what is in progress.
    pub fn show(&self, percent: u64, message: String) {
        self.0.set_position(percent);
        self.0.set_message(message);
    }
}

/// Draws a spinner with `message` on standard error until it is dropped. Draws nothing without a
/// terminal; the log has the same message.
#[must_use]
pub fn spinner(message: &str) -> ProgressBar {
    /// Looks smooth and costs nothing.
    const TICK: Duration = Duration::from_millis(100);
    let spinner = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    spinner.set_message(message.to_owned());
    spinner.enable_steady_tick(TICK);
    spinner
}

/// The tables and indexes that a program copies: a spinner on a terminal, else lines of the log.
pub struct Progress {
    action: &'static str,
    spinner: ProgressBar,
}

impl Progress {
    /// Draws a spinner, and logs with the same action: "backing up".
    #[must_use]
    pub fn new(action: &'static str) -> Self {
        Self {
            action,
            spinner: spinner(action),
        }
    }

    /// Shows that a table or an index begins.
    pub fn item(&self, item: &str) {
        match self.spinner.is_hidden() {
            true => tracing::info!(item, "{}", self.action),
            false => self.spinner.set_message(format!("{} {item}", self.action)),
        }
    }

    /// Logs that the last table or index takes long. On a terminal the spinner moves.
    pub fn go_on(&self) {
        if self.spinner.is_hidden() {
            let elapsed_s = self.spinner.elapsed().as_secs();
            tracing::info!(elapsed_s, "still {}", self.action);
        }
    }
}
