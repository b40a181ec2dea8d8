//! The sweeper marks nodes that are silent for longer than their TTL. Discovery
//! is right without it; it is for whoever looks at `health_status`, or follows
//! the journal.

use std::time::{Duration, Instant};

use crate::services::registry::{
    model::{MAX_PAUSE_TTLS, StaleNode},
    store::{FleetStats, MarkStale, StaleNodes},
};
use crate::{
    db::{Database, batch::Batcher},
    domain::error::{Error, Result},
    util::error_chain::error_chain,
};

/// How many nodes are marked at a time; then it looks again whether to wait.
const AT_A_TIME: usize = 500;

/// Sweeps for ever, with so much time between two sweeps. After the start, and
/// after the database was away, nodes get a grace in which to be heard of again:
/// that nobody heard of them until then is our own fault. Replicas may all do it:
/// a node is marked, and journaled, by one of them. Has to be called within a
/// tokio runtime.
pub async fn run(database: Database, interval: Duration, grace: Duration) {
    let sweeper = Sweeper {
        mark: Batcher::new(&database),
        database,
    };
    let mut was_waiting = false;
    let mut listening_since = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        if listening_since.elapsed() < grace {
            continue;
        }
        match sweeper.sweep().await {
            Ok(is_waiting) => {
                tell(was_waiting, is_waiting);
                was_waiting = is_waiting;
            }
            // The health says so already, and the next sweep finds the same nodes.
            Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                tracing::debug!(cause = error_chain(&error), "no sweep this time");
                listening_since = Instant::now();
            }
            Err(error) => tracing::error!(cause = error_chain(&error), "the sweeper failed"),
        }
    }
}

/// Says when the sweeper begins to wait, and when it goes on.
fn tell(was_waiting: bool, is_waiting: bool) {
    match (was_waiting, is_waiting) {
        (false, true) => tracing::warn!(
            "more than half of the nodes went silent: the sweeper waits, and marks only those \
             that are silent for twice their TTL"
        ),
        (true, false) => {
            tracing::warn!("the sweeper goes on: no more than half of the nodes went silent lately")
        }
        _ => {}
    }
}

struct Sweeper {
    database: Database,
    mark: Batcher<MarkStale>,
}

impl Sweeper {
    /// Marks everybody who is silent, or only who is for long; answers whether it waits.
    async fn sweep(&self) -> Result<bool> {
        loop {
            let mut silent = self.silent_for(1.0).await?;
            if silent.is_empty() {
                return Ok(false);
            }
            // Counted after they were found, so that all of them are counted.
            let is_mass_outage = self.database.run(&FleetStats).await?.is_mass_outage();
            if is_mass_outage {
                silent = self.silent_for(MAX_PAUSE_TTLS).await?;
            }
            let found = silent.len();
            self.mark_all(silent).await?;
            if found < AT_A_TIME {
                return Ok(is_mass_outage);
            }
        }
    }

    async fn silent_for(&self, ttls: f64) -> Result<Vec<StaleNode>> {
        let at_most = AT_A_TIME as i64;
        self.database.run(&StaleNodes { ttls, at_most }).await
    }

    async fn mark_all(&self, silent: Vec<StaleNode>) -> Result<()> {
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
