//! The edge of the service: from the socket to the handler, and from an error to a status.

pub mod admit;
pub mod auth;
pub mod batch_request;
pub mod call;
pub mod codec;
pub mod context;
pub mod health;
pub mod limits;
pub mod page_token;
pub mod quota;
pub mod reflection;
pub mod request_head;
pub mod response_size;
pub mod slices;
pub mod status;
pub mod stream_call;
pub mod transport;
pub mod validate;
