//! The SQL of retention, across all namespaces.

mod deleted_bridges;
mod expired;
mod policies;

pub use expired::{
    CountExpired, ExpiredGroup, ExpiredRows, Group, PruneRows, PruneTargets, Pruned,
};
