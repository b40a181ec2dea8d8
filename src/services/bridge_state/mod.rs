//! BridgeStateService: the totals and the state of each bridge (bridge_states), and the batches
//! that were added to them (bridge_batches).

mod convert;
pub mod model;
pub mod service;
mod store;
