//! What bridges are, and what changes them.

mod bridge;
mod change;

pub use bridge::{Bridge, BridgeDeletion, BridgeFilter, BridgeQuery, BridgeStats, StatsQuery};
pub use change::{BridgeChange, Changed, ChangedRow, MetadataUpdate, Totals};

/// The journal's name for bridges, and that of their machine.
pub const ENTITY_TYPE: &str = "bridge";
/// The event of a move that nobody named.
pub const MOVE_EVENT: &str = "move";
