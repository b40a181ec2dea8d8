//! What nodes are, and by which rules they count as alive.

mod fleet;
mod heartbeat;
mod node;

pub use fleet::{Fleet, PATIENCE_TTLS, SilentNode, is_mass_outage};
pub use heartbeat::{Heartbeat, Pulse};
pub use node::{
    Deregistration, Discovered, Discovery, NewNode, Node, NodeFilter, NodeHealth, NodeId, NodeQuery,
};

/// The journal's name for nodes.
pub const ENTITY_TYPE: &str = "node";

/// The event of a node's registration, the first or a later one.
pub const REGISTER_EVENT: &str = "register";
/// The event of a heartbeat that says another health than the node had.
pub const HEARTBEAT_EVENT: &str = "heartbeat";
/// The event of the sweeper, when a node was silent for too long.
pub const SILENCE_EVENT: &str = "silence";
/// The event and the state of a node's last move, when it is deregistered.
pub const DEREGISTER_EVENT: &str = "deregister";
/// See [`DEREGISTER_EVENT`].
pub const DEREGISTERED: &str = "DEREGISTERED";

/// The TTL of a node that does not say otherwise, in milliseconds: 5 minutes.
pub const DEFAULT_TTL_MS: i64 = 5 * 60 * 1000;
/// The shortest and the longest TTL, in milliseconds: a second, below which a
/// lost packet would be a dead node, and a day, which the schema knows too.
pub const TTL_MS: std::ops::RangeInclusive<i64> = 1000..=24 * 60 * 60 * 1000;

/// In how many milliseconds the next heartbeat is due: so that two may get lost.
#[must_use]
pub fn next_heartbeat_ms(ttl_ms: i64) -> i64 {
    ttl_ms / 3
}
