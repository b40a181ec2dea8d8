//! Conversions between the messages of `workflow_service.proto` and the domain types.

mod inbound;
mod outbound;

pub use outbound::get_workflow_response;
