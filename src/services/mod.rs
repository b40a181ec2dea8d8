//! The gRPC services. Each is a slice of the same four parts, to be read in this order:
//! `model` (domain types and rules), `convert` (between messages and domain types), `store`
//! (SQL), and `service` (the RPCs).

pub mod admin;
pub mod bridge_state;
mod convert;
pub mod fsm;
pub mod registry;
pub mod server_info;
pub mod workflow;
