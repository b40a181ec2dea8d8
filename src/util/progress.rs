//! A progress bar on a terminal.

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
