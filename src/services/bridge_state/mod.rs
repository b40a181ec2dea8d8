//! What reducers have aggregated.

mod convert;
pub mod model;
pub mod service;
mod store;
