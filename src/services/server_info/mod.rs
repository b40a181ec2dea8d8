//! What the server says of itself: version, capabilities, limits, database, caller.
//! No table.

mod convert;
pub mod model;
pub mod service;
mod store;
