//! The domain types of bridges, and the rules of a change.

mod bridge;
mod change;
mod consumption;

pub use bridge::{Bridge, BridgeDeletion, BridgeFilter, BridgeQuery, BridgeStats, StatsQuery};
pub use change::{BridgeChange, Changed, ChangedRow, MetadataUpdate, Totals};
pub use consumption::{BridgeView, Consumption, JournalEnd};

/// The `entity_type` of bridges in the journal, and of their machine.
pub const ENTITY_TYPE: &str = "bridge";
