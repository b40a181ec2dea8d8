//! What an operator wants to know of the whole.

mod convert;
pub mod model;
pub mod service;
mod store;
