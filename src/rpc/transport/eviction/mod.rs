//! The open connections: which count against the limit, and which one is evicted.
//!
//! Only an authenticated call makes a connection count against `--max-connections`. A
//! client without a credential therefore cannot lock out clients that have one, no matter
//! how many connections it opens. Tokens have equal shares of the limit: a token below its share
//! takes a slot of one above. Otherwise the connection that has been idle for longest makes room
//! for the next one.

mod authenticated;
mod evictable;
mod slot;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

pub use self::slot::ConnectionSlot;
use self::{authenticated::Authenticated, evictable::Evictable, slot::Slot};
use super::refused_calls::RefusedCalls;
use crate::{
    domain::id::TokenId,
    ops::metrics::ConnectionMetrics,
    util::{
        net::{KnownClients, Networks},
        shares::Shares,
    },
};

/// Connections beyond the limit that stay open. They answer calls with an error that names
/// the limit, and they answer health checks. Even at the limit, a new connection is evicted
/// only after many newer ones. So it has time to authenticate its first call. As many more may be
/// closing: they were told to, and have calls in progress.
const RESERVE: usize = 256;

/// Connections beside the limit, for tokens of administrators: they must get in while those of others
/// have calls in progress.
const ADMINISTRATOR_CONNECTIONS: usize = 16;

/// Connections that health checks protect from eviction, for as long as they are open, beside those
/// of known load balancers. A small part of the reserve, so that a flood of health checks leaves room
/// for newcomers.
const MAX_HEALTH_ONLY: usize = 16;

/// Maximum size of the headers that have not arrived completely, in bytes, as HTTP/2 counts it: of
/// the connections without an authenticated call, and as much of the others. They take some three
/// times as much memory.
const MAX_INCOMPLETE_HEADERS: usize = 16 * 1024 * 1024;

/// Minimum time between two warnings, because a flood of connections would fill the log.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The open connections.
pub struct Connections {
    limit: usize,
    metrics: ConnectionMetrics,
    /// The load balancers, whose connections are protected from eviction.
    health_from: Networks,
    refused_calls: RefusedCalls,
    /// The shares of incomplete headers.
    headers: Arc<Shares<IpAddr>>,
    authenticated_headers: Arc<Shares<IpAddr>>,
    /// The number of the next call, by which the idle connections are ordered.
    next_call: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Connections without an authenticated call.
    evictable: Evictable,
    authenticated: Authenticated,
    /// Connections that health checks protect: of unknown clients, and of known load balancers.
    health_only: usize,
    balancers: usize,
    next_id: u64,
    warned_at: Option<Instant>,
    share_warned_at: Option<Instant>,
    flood_warned_at: Option<Instant>,
    refused_calls_warned_at: Option<Instant>,
    accept_warned_at: Option<Instant>,
}

impl Connections {
    /// Makes an empty set, of which `limit` connections may make authenticated calls.
    #[must_use]
    pub fn new(limit: usize, known: KnownClients, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Connections {
            limit,
            metrics,
            health_from: known.health.clone(),
            refused_calls: RefusedCalls::new(known),
            headers: Shares::new(MAX_INCOMPLETE_HEADERS),
            authenticated_headers: Shares::new(MAX_INCOMPLETE_HEADERS),
            next_call: AtomicU64::default(),
            open: Mutex::default(),
        })
    }

    /// Adds a connection of a client. If the limit and the reserve are used up, evicts a
    /// connection without an authenticated call. There is one unless load balancers have all others:
    /// the other protected connections are fewer than the limit and the reserve.
    pub fn add(self: &Arc<Self>, client: IpAddr) -> Arc<ConnectionSlot> {
        let mut open = self.open();
        let count = open.authenticated.len() + open.unauthenticated();
        if count >= self.limit.saturating_add(RESERVE) {
            open.evictable.evict();
        }
        let id = open.next_id;
        open.next_id += 1;
        let slot = Slot::new(Arc::clone(self), id, client);
        open.evictable.insert(client, id, slot.evicted());
        self.metrics.open.inc();
        Arc::new(ConnectionSlot(Arc::new(slot)))
    }

    /// Closes a connection, because the process cannot open another file: one without an
    /// authenticated call, or else one that was told to, or else the one that has been idle for
    /// longest.
    pub(super) fn make_room(&self) {
        let mut open = self.open();
        if !open.evictable.evict() && !open.authenticated.evict_closing() {
            open.authenticated.retire_idle();
        }
    }

    fn is_full(&self) -> bool {
        self.open().authenticated.len() >= self.limit
    }

    /// Warns of connections over the limit.
    fn warn_of_limit(&self) {
        let mut open = self.open();
        if is_due(&mut open.warned_at) {
            tracing::warn!(
                limit = self.limit,
                authenticated = open.authenticated.len(),
                unauthenticated = open.unauthenticated(),
                "connections over the limit are closed"
            );
        }
    }

    /// Warns of a token that loses a connection to another one.
    fn warn_of_share(&self, token_id: Option<TokenId>) {
        if is_due(&mut self.open().share_warned_at) {
            tracing::warn!(
                limit = self.limit,
                token_id = token_id.map(tracing::field::display),
                "connections of a token over its share are closed for other tokens"
            );
        }
    }

    /// Warns that no connection can be accepted.
    pub(super) fn note_accept_failure(&self, error: &io::Error) {
        if is_due(&mut self.open().accept_warned_at) {
            tracing::warn!(%error, "cannot accept connections; idle ones are closed");
        }
    }

    /// Returns how long a new connection of a client waits before it is served, if it has to. Counts
    /// those that have to.
    pub(super) fn wait(&self, client: IpAddr) -> Option<Duration> {
        let wait = self.refused_calls.wait(client);
        if wait.is_some() {
            self.metrics.paused_for_refused_calls.inc();
        }
        wait
    }

    /// Counts a connection that was closed for a flood of frames, or for its headers, and warns of it.
    fn note_closed(&self, client: SocketAddr) {
        self.metrics.refused_flood.inc();
        if is_due(&mut self.open().flood_warned_at) {
            tracing::warn!(peer = %client, "connections that flood the server with frames, or do not complete their headers, are closed");
        }
    }

    /// Counts a connection that was closed for its refused calls, and warns of it.
    fn note_refused_calls(&self, client: SocketAddr) {
        self.metrics.refused_calls.inc();
        if is_due(&mut self.open().refused_calls_warned_at) {
            tracing::warn!(
                peer = %client,
                "connections that make too many calls without a valid credential are closed; set \
                 --proxy-from if the peer is a proxy, or --health-from if it is a load balancer"
            );
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether it is time for another warning, and notes it.
fn is_due(warned_at: &mut Option<Instant>) -> bool {
    let is_due = warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL);
    if is_due {
        *warned_at = Some(Instant::now());
    }
    is_due
}

impl Open {
    /// Returns the number of connections without an authenticated call.
    fn unauthenticated(&self) -> usize {
        self.evictable.len() + self.health_only + self.balancers
    }

    /// Returns the number of protected connections that a connection counts among.
    fn protected(&mut self, slot: &Slot) -> &mut usize {
        match slot.is_balancer {
            true => &mut self.balancers,
            false => &mut self.health_only,
        }
    }

    /// Removes a connection from the group that it is in.
    fn remove(&mut self, slot: &Slot) {
        if slot.is_authenticated() {
            self.authenticated.remove(slot);
        } else if slot.is_health_only() {
            let protected = self.protected(slot);
            *protected = protected.saturating_sub(1);
        } else {
            self.evictable.remove(slot.client, slot.id);
        }
    }
}

#[cfg(test)]
mod tests;
