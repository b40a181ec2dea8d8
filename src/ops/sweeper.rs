//! The sweeper: marks nodes UNHEALTHY that are silent for longer than their TTL.
//!
//! Discovery excludes stale nodes by itself. The sweeper is for clients that read `health_status`
//! or follow the journal.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::services::registry::{
    model::{PausedFleets, StaleNode},
    store::{CountPausedFleets, MarkStale, StaleNodes},
};
use crate::{
    db::{Database, batch::Batcher},
    domain::error::{Error, Result},
    util::{
        error_chain::error_chain,
        excerpt::{MAX_VALUE, excerpt},
    },
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
    let mut locked = LockedNodes::default();
    let mut reachable_since = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        if reachable_since.elapsed() < grace {
            continue;
        }
        match sweeper.sweep().await {
            Ok(swept) => {
                log_brake(&paused, &swept.paused);
                paused = swept.paused;
                let nodes = swept.locked.len();
                if let Some(node_id) = locked.update(swept.locked) {
                    log_locked(nodes, &node_id);
                }
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
            Err(error) => tracing::error!(cause = error.causes(), "sweep failed"),
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

/// Logs that nodes stay locked.
fn log_locked(nodes: usize, node_id: &str) {
    tracing::warn!(
        nodes,
        node_id = excerpt(node_id, MAX_VALUE),
        "stale nodes not marked: another session of the database locks their rows; find it in \
         pg_stat_activity"
    );
}

/// The nodes that another session of the database locks.
#[derive(Default)]
struct LockedNodes {
    /// Those of the last sweep, by id.
    node_ids: HashSet<String>,
    /// Whether they have been logged.
    is_logged: bool,
}

impl LockedNodes {
    /// Takes the locked nodes of a sweep. Returns one that stays locked, once until none does.
    fn update(&mut self, now: HashSet<String>) -> Option<String> {
        let stays = now.intersection(&self.node_ids).min().cloned();
        let was_logged = std::mem::replace(&mut self.is_logged, stays.is_some());
        self.node_ids = now;
        stays.filter(|_| !was_logged)
    }
}

/// The outcome of a sweep.
struct Swept {
    /// The fleets for which the sweeper pauses.
    paused: PausedFleets,
    /// The ids of stale nodes that another session locks.
    locked: HashSet<String>,
}

struct Sweeper {
    database: Database,
    mark: Batcher<MarkStale>,
}

impl Sweeper {
    /// Marks stale nodes, the owners in turns. In a fleet with a suspected mass outage it marks
    /// only nodes past twice their TTL.
    async fn sweep(&self) -> Result<Swept> {
        let mut is_any_stale = false;
        let mut locked = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            let at_most = AT_A_TIME as i64;
            let mut stale = self.database.run(&StaleNodes { at_most }).await?;
            let found = stale.len();
            is_any_stale |= found > 0;
            stale.retain(|node| !node.is_protected);
            let is_protected = stale.len() < found;
            locked.extend(self.mark_all(stale).await?);
            if is_protected || found < AT_A_TIME {
                break;
            }
        }
        let paused = match is_any_stale {
            true => self.database.run(&CountPausedFleets).await?,
            false => PausedFleets::default(),
        };
        Ok(Swept { paused, locked })
    }

    /// Marks nodes. Returns the ids of those that another session locks, which wait for a later
    /// sweep. Any other error is returned once the other nodes are marked.
    async fn mark_all(&self, stale: Vec<StaleNode>) -> Result<Vec<String>> {
        let node_ids: Vec<String> = stale.iter().map(|node| node.node_id.clone()).collect();
        let mut marked = 0;
        let mut locked = Vec::new();
        let mut outcome = Ok(());
        let answers = self.mark.submit_all(stale).await;
        for (node_id, answer) in node_ids.into_iter().zip(answers) {
            match answer {
                Ok(is_marked) => marked += usize::from(is_marked),
                Err(Error::Locked(_) | Error::Contended) => locked.push(node_id),
                Err(error) => outcome = Err(error),
            }
        }
        if marked > 0 {
            tracing::info!(marked, "stale nodes marked UNHEALTHY");
        }
        outcome.map(|()| locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stays_locked_is_reported_once() {
        let sweeps = [
            ("a", None),
            ("b", None),
            ("a b", Some("b")),
            ("a b", None),
            ("c", None),
            ("c", Some("c")),
            ("", None),
        ];
        let mut locked = LockedNodes::default();
        for (number, (nodes, reported)) in sweeps.into_iter().enumerate() {
            let nodes = nodes.split_whitespace().map(str::to_owned).collect();
            assert_eq!(locked.update(nodes).as_deref(), reported, "sweep {number}");
        }
    }
}
