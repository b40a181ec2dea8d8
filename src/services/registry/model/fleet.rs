//! All nodes together, and when their silence is not taken at its word.

use chrono::{DateTime, Utc};
use diesel::{prelude::*, sql_types::BigInt};

use super::NodeHealth;

/// From how many nodes on the sweeper may wait. Of two that went silent together
/// nothing can be concluded, and a lone dead one has to be marked.
const LEAST_FLEET: i64 = 3;

/// For how many of its own TTLs a node may be silent before it is marked whatever
/// the others do. So nobody's nodes keep the sweeper from those of others for
/// longer than one more TTL of these.
pub const PATIENCE_TTLS: f64 = 2.0;

/// The nodes that count, and how many of them are silent.
///
/// Those count that are heard of, and those that went silent within their last
/// TTL, be they marked already or not: nodes send their heartbeats at different
/// times, so when all of them are cut off at once they go silent one by one. Who
/// has been silent for longer, see [`PATIENCE_TTLS`], is marked and does not count
/// any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Fleet {
    /// How many nodes count.
    #[diesel(sql_type = BigInt)]
    pub nodes: i64,
    /// How many of them are silent for longer than their TTL.
    #[diesel(sql_type = BigInt)]
    pub silent: i64,
}

impl Fleet {
    /// Whether the sweeper waits.
    #[must_use]
    pub fn is_mass_outage(self) -> bool {
        is_mass_outage(self.nodes, self.silent)
    }
}

/// Whether the sweeper waits: more than half of the fleet is silent, so the
/// fault is more likely on our side, or on the way to us.
#[must_use]
pub fn is_mass_outage(nodes: i64, silent: i64) -> bool {
    nodes >= LEAST_FLEET && silent > nodes / 2
}

/// A node that is silent for longer than its TTL and not yet marked, as it was
/// when it was found.
#[derive(Debug, Queryable)]
pub struct SilentNode {
    /// The node.
    pub node_id: String,
    /// How it is by its own word.
    pub health_status: NodeHealth,
    /// When it was last heard of.
    pub last_heartbeat: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweeper_waits_if_more_than_half_of_a_real_fleet_is_silent() {
        for (nodes, silent, expected) in [
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
            assert_eq!(
                is_mass_outage(nodes, silent),
                expected,
                "{silent} of {nodes}"
            );
        }
    }
}
