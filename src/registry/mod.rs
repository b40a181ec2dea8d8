//! The nodes, and which of them are alive.

mod convert;
pub mod model;
pub mod service;
mod store;
pub mod sweeper;

pub use store::Census;
