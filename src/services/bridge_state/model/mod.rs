//! The domain types of bridges, and the rules of a change.

mod bridge;
mod change;

pub use bridge::{Bridge, BridgeDeletion, BridgeFilter, BridgeQuery, BridgeStats, StatsQuery};
pub use change::{BridgeChange, Changed, ChangedRow, MetadataUpdate, Totals};

/// The `entity_type` of bridges in the journal, and of their machine.
pub const ENTITY_TYPE: &str = "bridge";
