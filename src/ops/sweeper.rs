//! The sweeper: marks nodes UNHEALTHY that are silent for longer than their TTL.
//!
//! Discovery excludes stale nodes by itself. The sweeper is for clients that read `health_status`
//! or follow the journal.

use std::time::{Duration, Instant};

use crate::services::registry::{
    model::{PausedFleets, StaleNode},
    store::{CountPausedFleets, MarkStale, StaleNodes},
};
use crate::{
    db::{Database, batch::Batcher},
    domain::error::{Error, Result},
    util::error_chain::error_chain,
};

/// The most nodes that are marked at a time, before the owners' turns and the mass-outage brake
/// are evaluated again.
const AT_A_TIME: usize = 500;

/// The most rounds of [`AT_A_TIME`] nodes in a sweep. Nodes beyond them wait for the next one,
/// so that a large fleet does not keep the database busy without a rest.
const MAX_ROUNDS: usize = 20;

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
    let mut paused = PausedFleets::default();
    let mut reachable_since = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        if reachable_since.elapsed() < grace {
            continue;
        }
        match sweeper.sweep().await {
            Ok(now_paused) => {
                log_brake(&paused, &now_paused);
                paused = now_paused;
            }
            // Health logs an outage. Heartbeats could not arrive during it.
            Err(error @ Error::DatabaseUnavailable(_)) => {
                tracing::debug!(cause = error_chain(&error), "sweep skipped");
                reachable_since = Instant::now();
            }
            // The next sweep finds the same nodes.
            Err(error @ Error::QueueFull) => {
                tracing::debug!(cause = error_chain(&error), "sweep skipped");
            }
            Err(error) => tracing::error!(cause = error_chain(&error), "sweep failed"),
        }
    }
}

/// Logs when the fleets for which the sweeper pauses have changed.
fn log_brake(before: &PausedFleets, now: &PausedFleets) {
    if now == before {
        return;
    }
    if now.count >= before.count {
        tracing::warn!(
            fleets = now.count,
            namespace = now.owner,
            node_type = now.node_type,
            "sweeper paused: more than half of the owner's nodes of this type became stale; only \
             those silent for twice their TTL are marked"
        );
    } else {
        tracing::warn!(
            fleets = now.count,
            "sweeper resumed: at most half of the nodes became stale recently"
        );
    }
}

struct Sweeper {
    database: Database,
    mark: Batcher<MarkStale>,
}

impl Sweeper {
    /// Marks stale nodes, the owners in turns. In a fleet with a suspected mass outage it marks
    /// only nodes past twice their TTL. Returns the fleets for which it paused.
    async fn sweep(&self) -> Result<PausedFleets> {
        let mut is_any_stale = false;
        for _ in 0..MAX_ROUNDS {
            let at_most = AT_A_TIME as i64;
            let mut stale = self.database.run(&StaleNodes { at_most }).await?;
            let found = stale.len();
            is_any_stale |= found > 0;
            stale.retain(|node| !node.is_protected);
            let is_protected = stale.len() < found;
            self.mark_all(stale).await?;
            if is_protected || found < AT_A_TIME {
                break;
            }
        }
        match is_any_stale {
            true => self.database.run(&CountPausedFleets).await,
            false => Ok(PausedFleets::default()),
        }
    }

    /// Marks nodes. A node that another session locks waits for a later sweep. Any other error
    /// is returned once the other nodes are marked.
    async fn mark_all(&self, stale: Vec<StaleNode>) -> Result<()> {
        let mut marked = 0;
        let mut outcome = Ok(());
        for answer in self.mark.submit_all(stale).await {
            match answer {
                Ok(is_marked) => marked += usize::from(is_marked),
                Err(error @ (Error::Locked(_) | Error::Contended)) => {
                    tracing::debug!(cause = error_chain(&error), "stale node skipped");
                }
                Err(error) => outcome = Err(error),
            }
        }
        if marked > 0 {
            tracing::info!(marked, "stale nodes marked UNHEALTHY");
        }
        outcome
    }
}
