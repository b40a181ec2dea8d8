//! RegistryService: the nodes of all tenants (node_registrations), and which of them are alive.

mod convert;
pub mod model;
pub mod service;
pub(crate) mod store;

pub use store::CountPausedFleets;
