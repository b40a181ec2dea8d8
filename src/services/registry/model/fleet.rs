//! Fleets: the nodes of one owner and one type. The mass-outage brake of the sweeper looks at
//! each fleet alone, so that no tenant's outage delays marking the nodes of another.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamptz},
};

use super::NodeHealth;

/// Minimum number of counted nodes for a mass outage. Two nodes that go stale together
/// prove nothing, and a single dead node has to be marked.
pub const MIN_FLEET_NODES: i64 = 3;

/// Maximum time that the mass-outage brake protects a stale node, as a multiple of the
/// node's own TTL.
pub const MAX_PAUSE_TTLS: f64 = 2.0;

/// The fleets for which the sweeper pauses, because more than half of the fleet is stale:
/// the fault is then more likely in this service, or in the network, than in the nodes.
///
/// A node counts if it is alive, or if it went stale within its last TTL, marked or not:
/// heartbeats are spread over time, so after a cut of the network nodes go stale one by
/// one. A node that has been stale for longer (see [`MAX_PAUSE_TTLS`]) is marked and no
/// longer counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, QueryableByName)]
pub struct PausedFleets {
    /// How many fleets they are.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// The owner of the one with the most nodes.
    #[diesel(sql_type = Nullable<Text>)]
    pub owner: Option<String>,
    /// The type of the nodes of that one.
    #[diesel(sql_type = Nullable<Text>)]
    pub node_type: Option<String>,
}

/// A stale node that is not marked yet, as the sweeper read it.
#[derive(Debug, QueryableByName)]
pub struct StaleNode {
    /// The name of the node.
    #[diesel(sql_type = Text)]
    pub node_id: String,
    /// The health that the node last reported.
    #[diesel(sql_type = Text)]
    pub health_status: NodeHealth,
    /// The time of its last heartbeat.
    #[diesel(sql_type = Timestamptz)]
    pub last_heartbeat: DateTime<Utc>,
    /// Whether the mass-outage brake protects it.
    #[diesel(sql_type = Bool)]
    pub is_protected: bool,
}
