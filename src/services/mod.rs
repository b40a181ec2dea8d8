//! The gRPC services. Each is a slice of the same four parts: `model` (domain types and
//! rules), `convert` (messages to and from them), `store` (SQL), `service` (the RPCs).

pub mod admin;
pub mod bridge_state;
pub mod fsm;
pub mod registry;
pub mod server_info;
pub mod workflow;
