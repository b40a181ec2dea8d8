//! Conversions between the messages of `bridge_state_service.proto` and the domain types.

mod inbound;
mod outbound;
