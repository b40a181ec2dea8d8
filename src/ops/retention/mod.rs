//! Retention: how long rows are kept, and the pruner that removes expired ones.
//!
//! Settings give a default for each table; a policy of AdminService overrides it for a namespace.
//! The [`pruner`] of each replica removes expired rows in small statements.

pub mod model;
pub mod pruner;
pub mod removal;
pub mod store;
