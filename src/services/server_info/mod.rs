//! ServerService: the version, capabilities, limits and database of the server, and the caller
//! of the request. It has no table.

mod convert;
pub mod model;
pub mod service;
mod store;
