//! The end of a run for its readers: when the callers have stopped, they read what is left.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::journal::{Filter, Journal, parse};

/// How long the readers may take for what is left. Bookmarks come every 5 s.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The journal that all readers have to reach, and until when.
type Goal = Option<(Arc<Journal>, Instant)>;

/// Tells the readers of the end.
pub struct Announcement(watch::Sender<Goal>);

impl Announcement {
    /// Prepares the announcement.
    pub fn new() -> Self {
        Announcement(watch::Sender::new(None))
    }

    /// Returns what a reader hears.
    pub fn end(&self) -> End {
        End(self.0.subscribe())
    }

    /// Announces that the readers are done as soon as they have come to the end of this journal.
    pub fn announce(&self, journal: Arc<Journal>) {
        self.0
            .send_replace(Some((journal, Instant::now() + TIMEOUT)));
    }
}

/// What a reader knows of the end.
#[derive(Clone)]
pub struct End(watch::Receiver<Goal>);

impl End {
    /// Returns whether a reader that has come to this position is done.
    pub fn is_reached(&self, filter: Filter, position: Option<&str>) -> bool {
        let goal = self.0.borrow();
        let end = goal.as_ref().map(|(journal, _)| journal.end(filter));
        end.zip(position).is_some_and(|(end, at)| parse(at) >= end)
    }

    /// Reads until the reader is done, or its time is over. Fails with the reason for the summary.
    pub async fn limit<T>(
        &self,
        reading: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, String> {
        tokio::select! {
            outcome = reading => outcome.map_err(|status| status.to_string()),
            () = self.timeout() => Err(format!(
                "did not come to the end of the journal within {} s", TIMEOUT.as_secs()
            )),
        }
    }

    async fn timeout(&self) {
        let mut goal = self.0.clone();
        let deadline = match goal.wait_for(Option::is_some).await {
            Ok(goal) => goal.as_ref().map(|(_, deadline)| *deadline),
            // The run has ended, and does not wait for this reader.
            Err(_) => None,
        };
        if let Some(deadline) = deadline {
            sleep_until(deadline).await;
        }
    }
}
