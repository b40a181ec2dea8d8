//! Conversions between the messages of `server_service.proto` and the domain types.

mod inbound;
mod outbound;
