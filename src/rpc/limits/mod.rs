//! Limits of connections, of calls in progress, and of their bytes.
//!
//! A call over a limit is rejected at once (load shedding). Unbounded waiting would lose
//! calls when the load is highest.

mod body;
mod byte_budget;
mod infrastructure;
mod infrastructure_rate;
mod layer;
mod permit;
mod slots;

use std::time::Duration;

pub use self::{
    infrastructure_rate::ReflectionRate,
    layer::{KnownToken, LimitLayer},
    permit::{has_room, reserve_response, set_caller},
};
use crate::{
    domain::{limits::ContentLimits, quota::QuotaDefaults},
    util::net::KnownClients,
};

/// Maximum size of a message of health and reflection, in bytes. Reflection repeats requests, which
/// need no credential, in its responses.
pub const MAX_INFRASTRUCTURE_MESSAGE: usize = 64 * 1024;

/// All limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Limits of connections.
    pub connection: ConnectionLimits,
    /// Limits of the content of a request.
    pub content: ContentLimits,
    /// Maximum number of calls in progress; `None` for no limit.
    pub requests: Option<usize>,
    /// Byte budget of the requests and responses of all calls in progress; `None` for no
    /// limit.
    pub request_bytes: Option<usize>,
    /// Maximum number of streams of the journal.
    pub watches: usize,
    /// The limits of namespaces and tokens without a quota of their own.
    pub quotas: QuotaDefaults,
}

/// How many calls are in work at most before connections wait: two full batches, and as many calls
/// that arrive meanwhile. More would only wait in the queues of the batches.
const MAX_WORK_SLOTS: usize = 2048;

impl Limits {
    /// Returns how many calls are in work before connections wait. That leaves calls in progress that
    /// are not in work, and the first call of each connection, which never waits.
    #[must_use]
    pub fn work_slots(&self) -> usize {
        let half = self.requests.map_or(MAX_WORK_SLOTS, |limit| limit / 2);
        half.clamp(1, MAX_WORK_SLOTS)
    }
}

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Maximum number of connections with an authenticated call.
    pub connections: usize,
    /// Maximum number of streams on one connection.
    pub streams: u32,
    /// Maximum size of the headers of a call, in bytes.
    pub header_bytes: usize,
    /// Load balancers and proxies.
    pub known_clients: KnownClients,
    /// Health calls per second of one client.
    pub health_rate: u32,
    /// Reflection streams and their requests per second of one client.
    pub reflection_rate: u32,
    /// Maximum duration of the TLS handshake, then of the HTTP/2 preface, and later of the headers of
    /// a call.
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
    /// Maximum time in which the client does not read a response that is ready.
    pub stall_timeout: Duration,
    /// Interval at which the limits of a connection are checked.
    pub check_interval: Duration,
}
