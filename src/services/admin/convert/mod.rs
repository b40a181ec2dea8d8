//! Conversions between the messages of `admin_service.proto` and the domain types.

mod inbound;
mod outbound;
mod quotas;
