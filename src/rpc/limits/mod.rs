//! What callers may take of the service, all together and each alone.
//!
//! Whatever is over a limit is turned away at once, and told so: what waits without
//! bound is lost when it matters.

mod body;
mod layer;
mod permit;

use std::{num::NonZeroU32, time::Duration};

pub use self::layer::LimitLayer;
use crate::domain::limits::ContentLimits;

/// All limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of connections.
    pub connection: ConnectionLimits,
    /// Of what a request may hold.
    pub content: ContentLimits,
    /// How many calls may be under way; `None` for any number.
    pub requests: Option<usize>,
    /// How many bytes the requests and the answers of all calls that are under way may
    /// have together; `None` for any number.
    pub request_bytes: Option<usize>,
    /// How many calls a token may make in a second; `None` for any number.
    pub rate: Option<NonZeroU32>,
}

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Maximum number of connections with an authenticated call.
    pub connections: usize,
    /// Maximum number of streams on one connection.
    pub streams: u32,
    /// Maximum size of the headers of a call, in bytes.
    pub header_bytes: u32,
    /// Maximum duration of the TLS handshake, and then of the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Time for the first authenticated call. A connection without one closes after it
    /// if the limit of connections is reached.
    pub unauthenticated_timeout: Duration,
    /// Interval of keepalive pings.
    pub keepalive_interval: Duration,
    /// Maximum time for the answer to a keepalive ping.
    pub keepalive_timeout: Duration,
    /// Maximum time without a call.
    pub max_idle: Duration,
    /// Maximum age of a connection; `None` for any age.
    pub max_age: Option<Duration>,
    /// Time that calls in progress have to end on a connection that closes.
    pub grace: Duration,
    /// Maximum time in which the client does not read an answer that is ready.
    pub stall_timeout: Duration,
    /// Interval at which the limits of a connection are checked.
    pub check_interval: Duration,
}
