//! Conversions between the messages of `registry_service.proto` and the domain types.

mod inbound;
mod outbound;
