//! The sweeper marks nodes that are silent for longer than their TTL. Discovery
//! is right without it; it is for whoever looks at `health_status`, or follows
//! the journal.

use std::time::Duration;

use super::{
    model::SilentNode,
    store::{Census, MarkSilent, SilentNodes},
};
use crate::{
    db::{Database, batch::Batcher},
    error::{Error, Result, chain},
};

/// How many nodes are marked at a time; then it looks again whether to wait.
const AT_A_TIME: usize = 500;

/// Sweeps for ever, with so much time between two sweeps. Replicas may all do it:
/// a node is marked, and journaled, by one of them. Has to be called within a
/// tokio runtime.
pub async fn run(database: Database, interval: Duration) {
    let sweeper = Sweeper {
        mark: Batcher::new(&database),
        database,
    };
    let mut was_waiting = false;
    loop {
        tokio::time::sleep(interval).await;
        match sweeper.sweep().await {
            Ok(is_waiting) => {
                tell(was_waiting, is_waiting);
                was_waiting = is_waiting;
            }
            // The health says so already, and the next sweep finds the same nodes.
            Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                tracing::debug!(cause = chain(&error), "no sweep this time");
            }
            Err(error) => tracing::error!(cause = chain(&error), "the sweeper failed"),
        }
    }
}

/// Says when the sweeper begins to wait, and when it goes on.
fn tell(was_waiting: bool, is_waiting: bool) {
    match (was_waiting, is_waiting) {
        (false, true) => tracing::warn!(
            "more than half of the nodes are silent: the sweeper waits and marks nobody"
        ),
        (true, false) => {
            tracing::warn!("the sweeper goes on: no more than half of the nodes are silent")
        }
        _ => {}
    }
}

struct Sweeper {
    database: Database,
    mark: Batcher<MarkSilent>,
}

impl Sweeper {
    /// Marks everybody who is silent, or nobody; answers whether it waits.
    async fn sweep(&self) -> Result<bool> {
        loop {
            let fleet = self.database.read(&Census).await?;
            if fleet.is_braked() || fleet.silent == 0 {
                return Ok(fleet.is_braked());
            }
            let at_most = AT_A_TIME as i64;
            let silent = self.database.read(&SilentNodes { at_most }).await?;
            let found = silent.len();
            self.mark_all(silent).await?;
            if found < AT_A_TIME {
                return Ok(false);
            }
        }
    }

    async fn mark_all(&self, silent: Vec<SilentNode>) -> Result<()> {
        let mut marked = 0;
        for answer in self.mark.submit_all(silent).await {
            marked += usize::from(answer?);
        }
        if marked > 0 {
            tracing::info!(marked, "nodes are silent, and UNHEALTHY from now on");
        }
        Ok(())
    }
}
