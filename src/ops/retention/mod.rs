//! For how long rows are kept.
//!
//! Settings say it for each table, and AdminService for the tables of a namespace.
//! [`pruner`] removes what is older, a few rows at a time, in every replica.

pub mod model;
pub mod pruner;
pub mod store;
