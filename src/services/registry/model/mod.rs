//! The domain types of the registry, the journal events of nodes, and the limits of a TTL.

mod fleet;
mod heartbeat;
mod node;

pub use fleet::{MAX_PAUSE_TTLS, MIN_FLEET_NODES, PausedFleets, StaleNode};
pub use heartbeat::{Heartbeat, HeartbeatAck};
pub use node::{
    Deregistration, Discovered, Discovery, LiveNode, NewNode, Node, NodeFilter, NodeHealth, NodeId,
    NodeQuery,
};

/// The `entity_type` of nodes in the journal.
pub const ENTITY_TYPE: &str = "node";

/// The journal event of a first registration, and of one that changes the health.
pub const REGISTER_EVENT: &str = "register";
/// The journal event of a heartbeat that reports another health than the node had.
pub const HEARTBEAT_EVENT: &str = "heartbeat";
/// The journal event of the sweeper, for a node whose TTL expired.
pub const EXPIRE_EVENT: &str = "expire";
/// The journal event of a deregistration.
pub const DEREGISTER_EVENT: &str = "deregister";
/// The state that a deregistered node has in the journal.
pub const DEREGISTERED: &str = "DEREGISTERED";

/// Default TTL of a node, in milliseconds: 5 minutes.
pub const DEFAULT_TTL_MS: i64 = 5 * 60 * 1000;
/// Shortest and longest TTL of a node, in milliseconds: 1 second, because a single lost
/// packet would expire a shorter one, and 1 day, which a CHECK of the table repeats.
pub const TTL_MS: std::ops::RangeInclusive<i64> = 1000..=24 * 60 * 60 * 1000;

/// Returns the time until the next heartbeat is due, in milliseconds: a third of the TTL,
/// so that two heartbeats may get lost.
#[must_use]
pub fn next_heartbeat_ms(ttl_ms: i64) -> i64 {
    ttl_ms / 3
}
