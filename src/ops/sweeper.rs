//! The sweeper: marks nodes UNHEALTHY that are silent for longer than their TTL.
//!
//! Discovery excludes stale nodes by itself. The sweeper is for clients that read `health_status`
//! or follow the journal.

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

/// The most nodes that are marked at a time, before the mass-outage brake is checked again.
const AT_A_TIME: usize = 500;

/// Sweeps at an interval. Never returns. Must be called within a tokio runtime.
///
/// After the start and after an outage of the database no node is marked for `grace`, because
/// heartbeats could not arrive before. All replicas sweep: each stale node is marked and journaled
/// by one of them.
pub async fn run(database: Database, interval: Duration, grace: Duration) {
    let sweeper = Sweeper {
        mark: Batcher::new(&database),
        database,
    };
    let mut was_braked = false;
    let mut reachable_since = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        if reachable_since.elapsed() < grace {
            continue;
        }
        match sweeper.sweep().await {
            Ok(is_braked) => {
                log_brake(was_braked, is_braked);
                was_braked = is_braked;
            }
            // Health logs the cause, and the next sweep finds the same nodes.
            Err(error @ (Error::DatabaseUnavailable(_) | Error::QueueFull)) => {
                tracing::debug!(cause = error_chain(&error), "sweep skipped");
                reachable_since = Instant::now();
            }
            Err(error) => tracing::error!(cause = error_chain(&error), "sweep failed"),
        }
    }
}

/// Logs when the mass-outage brake engages and when it releases.
fn log_brake(was_braked: bool, is_braked: bool) {
    match (was_braked, is_braked) {
        (false, true) => tracing::warn!(
            "sweeper paused: more than half of the nodes became stale; only nodes silent for twice \
             their TTL are marked"
        ),
        (true, false) => {
            tracing::warn!("sweeper resumed: at most half of the nodes became stale recently")
        }
        _ => {}
    }
}

struct Sweeper {
    database: Database,
    mark: Batcher<MarkStale>,
}

impl Sweeper {
    /// Marks stale nodes. During a suspected mass outage marks only nodes past twice their TTL.
    /// Returns whether the mass-outage brake is engaged.
    async fn sweep(&self) -> Result<bool> {
        loop {
            let mut stale = self.stale_nodes(1.0).await?;
            if stale.is_empty() {
                return Ok(false);
            }
            // Counted afterwards, so that the count includes all nodes that were found.
            let is_mass_outage = self.database.run(&FleetStats).await?.is_mass_outage();
            if is_mass_outage {
                stale = self.stale_nodes(MAX_PAUSE_TTLS).await?;
            }
            let found = stale.len();
            self.mark_all(stale).await?;
            if found < AT_A_TIME {
                return Ok(is_mass_outage);
            }
        }
    }

    /// Returns nodes that are silent for longer than `ttls` times their TTL.
    async fn stale_nodes(&self, ttls: f64) -> Result<Vec<StaleNode>> {
        let at_most = AT_A_TIME as i64;
        self.database.run(&StaleNodes { ttls, at_most }).await
    }

    async fn mark_all(&self, stale: Vec<StaleNode>) -> Result<()> {
        let mut marked = 0;
        for answer in self.mark.submit_all(stale).await {
            marked += usize::from(answer?);
        }
        if marked > 0 {
            tracing::info!(marked, "stale nodes marked UNHEALTHY");
        }
        Ok(())
    }
}
