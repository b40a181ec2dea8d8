//! The fleet: all nodes of all namespaces, and the mass-outage brake of the sweeper.

use chrono::{DateTime, Utc};
use diesel::{prelude::*, sql_types::BigInt};

use super::NodeHealth;

/// Minimum number of counted nodes for a mass outage. Two nodes that go stale together
/// prove nothing, and a single dead node has to be marked.
const MIN_FLEET_NODES: i64 = 3;

/// Maximum time that the mass-outage brake protects a stale node, as a multiple of the
/// node's own TTL. It bounds how long the nodes of one tenant can delay marking those of
/// another: by one more TTL.
pub const MAX_PAUSE_TTLS: f64 = 2.0;

/// The number of counted nodes, and how many of them are stale.
///
/// A node counts if it is alive, or if it went stale within its last TTL, marked or not:
/// heartbeats are spread over time, so after a cut of the network nodes go stale one by
/// one. A node that has been stale for longer (see [`MAX_PAUSE_TTLS`]) is marked and no
/// longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Fleet {
    /// Number of nodes that count.
    #[diesel(sql_type = BigInt)]
    pub nodes: i64,
    /// Number of these without a heartbeat for longer than their TTL.
    #[diesel(sql_type = BigInt)]
    pub stale: i64,
}

impl Fleet {
    /// Whether the sweeper pauses, because more than half of the fleet is stale: the
    /// fault is then more likely in this service, or in the network, than in the nodes.
    #[must_use]
    pub fn is_mass_outage(self) -> bool {
        self.nodes >= MIN_FLEET_NODES && self.stale > self.nodes / 2
    }
}

/// A stale node that is not marked yet, as the sweeper read it.
#[derive(Debug, Queryable)]
pub struct StaleNode {
    /// The name of the node.
    pub node_id: String,
    /// The health that the node last reported.
    pub health_status: NodeHealth,
    /// The time of its last heartbeat.
    pub last_heartbeat: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_at_least_three_nodes_is_a_mass_outage() {
        for (nodes, stale, expected) in [
            (0, 0, false),
            (1, 1, false),
            (2, 2, false),
            (3, 1, false),
            (3, 2, true),
            (3, 3, true),
            (4, 2, false),
            (4, 3, true),
            (10_000, 5_000, false),
            (10_000, 5_001, true),
        ] {
            let fleet = Fleet { nodes, stale };
            assert_eq!(fleet.is_mass_outage(), expected, "{stale} of {nodes}");
        }
    }
}
