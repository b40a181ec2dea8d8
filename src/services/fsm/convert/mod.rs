//! Conversions between the messages of `fsm_service.proto` and the domain types.

mod inbound;
mod outbound;
