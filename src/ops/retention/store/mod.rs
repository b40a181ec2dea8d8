//! The SQL of retention, across all namespaces.

mod deleted_bridges;
mod expired;
mod journal_floor;
mod policies;
mod row_name;
mod targets;

pub use expired::{CountExpired, ExpiredGroup, ExpiredRows, Group, MAX_ROWS, PruneRows, Pruned};
pub use row_name::RowName;
pub use targets::PruneTargets;
