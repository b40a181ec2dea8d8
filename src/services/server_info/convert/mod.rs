//! Between messages and domain types.

mod inbound;
mod outbound;
