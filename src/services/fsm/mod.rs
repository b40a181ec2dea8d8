//! State machines of the user's own, the entities that move by them, and the
//! journal of every state change.

mod convert;
pub mod model;
pub mod service;
pub(crate) mod store;
