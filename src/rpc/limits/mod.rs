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
    /// How many there may be.
    pub connections: usize,
    /// How many calls each may have under way; clients let more wait.
    pub streams: u32,
    /// How many bytes of headers a call may have.
    pub header_bytes: u32,
    /// How often the other end is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// How long it has to answer that.
    pub keepalive_timeout: Duration,
    /// For how long it may be without calls.
    pub max_idle: Duration,
    /// How old it may get; `None` for any age.
    pub max_age: Option<Duration>,
    /// How long calls that are under way may go on on a connection whose time has come.
    pub grace: Duration,
    /// How often it is looked at.
    pub check_interval: Duration,
}
