//! The open connections: which count against the limit, and which one is evicted.
//!
//! Only an authenticated call makes a connection count against `--max-connections`. A
//! client without a credential therefore cannot lock out clients that have one, no matter
//! how many connections it opens. Clients with a credential share the limit: the connection
//! that has been idle for longest makes room for the next one.

mod evictable;
mod slot;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicU64},
    time::{Duration, Instant},
};

pub use self::slot::ConnectionSlot;
use self::{evictable::Evictable, slot::Slot};
use super::refused_calls::RefusedCalls;
use crate::{
    ops::metrics::ConnectionMetrics,
    util::{
        net::{KnownClients, Networks},
        shares::Shares,
    },
};

/// Connections beyond the limit that stay open. They answer calls with an error that names
/// the limit, and they answer health checks. Even at the limit, a new connection is evicted
/// only after many newer ones. So it has time to authenticate its first call.
const RESERVE: usize = 256;

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
    headers: Arc<Shares>,
    authenticated_headers: Arc<Shares>,
    /// The number of the next call, by which the idle connections are ordered.
    next_call: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Connections without an authenticated call.
    evictable: Evictable,
    authenticated: HashMap<u64, Weak<Slot>>,
    /// Connections that health checks protect: of unknown clients, and of known load balancers.
    health_only: usize,
    balancers: usize,
    next_id: u64,
    warned_at: Option<Instant>,
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
    /// authenticated call, or else the one that has been idle for longest.
    pub(super) fn make_room(&self) {
        let mut open = self.open();
        if !open.evictable.evict() {
            open.retire_idle();
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

    /// Tells the authenticated connection that has been idle for longest to close. Returns
    /// false if all have calls in progress.
    fn retire_idle(&mut self) -> bool {
        let slots = self.authenticated.iter();
        let idle = slots.filter_map(|(id, slot)| Some((slot.upgrade()?.idle_since()?, *id)));
        let Some((_, id)) = idle.min() else {
            return false;
        };
        if let Some(slot) = self.authenticated.remove(&id).and_then(|it| it.upgrade()) {
            slot.retire();
        }
        true
    }

    /// Removes a connection from the group that it is in.
    fn remove(&mut self, slot: &Slot) {
        if slot.is_authenticated() {
            // It is in no group if it was retired.
            self.authenticated.remove(&slot.id);
        } else if slot.is_health_only() {
            let protected = self.protected(slot);
            *protected = protected.saturating_sub(1);
        } else {
            self.evictable.remove(slot.client, slot.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{domain::error::Error, ops::metrics::Metrics};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn connections(limit: usize) -> Arc<Connections> {
        let metrics = Metrics::new().unwrap();
        let known = KnownClients {
            health: "192.0.2.99".parse().unwrap(),
            ..KnownClients::default()
        };
        Connections::new(limit, known, metrics.connections().clone())
    }

    fn add(connections: &Arc<Connections>, count: usize) -> Vec<Arc<ConnectionSlot>> {
        (0..count).map(|_| connections.add(HERE)).collect()
    }

    fn is_evicted(slot: &Arc<ConnectionSlot>) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_connection_without_an_authenticated_call_is_evicted() {
        let connections = connections(1);
        let authenticated = connections.add(HERE);
        authenticated.authenticate().unwrap();
        let health_only = connections.add(HERE);
        health_only.protect_health_checks();
        let silent = add(&connections, RESERVE - 1);
        assert!(!silent.iter().any(is_evicted));
        let _newcomers = add(&connections, 2);
        assert!(is_evicted(&silent[0]) && is_evicted(&silent[1]));
        assert!(!is_evicted(&silent[2]));
        assert!(!is_evicted(&authenticated) && !is_evicted(&health_only));
    }

    #[test]
    fn health_checks_do_not_lock_out_newcomers() {
        let connections = connections(1);
        let flood = add(&connections, 3 * RESERVE);
        for slot in &flood {
            slot.protect_health_checks();
        }
        let newcomers = add(&connections, RESERVE - MAX_HEALTH_ONLY);
        assert!(!newcomers.iter().any(is_evicted));
        newcomers[0].authenticate().unwrap();
        let balancer = connections.add("192.0.2.99".parse().unwrap());
        balancer.protect_health_checks();
        let _newcomers = add(&connections, 2 * RESERVE);
        assert!(is_evicted(&newcomers[1]) && !is_evicted(&balancer));
    }

    #[test]
    fn load_balancers_do_not_take_the_protection_of_others() {
        let connections = connections(1);
        let balancers: Vec<_> = (0..2 * MAX_HEALTH_ONLY)
            .map(|_| connections.add("192.0.2.99".parse().unwrap()))
            .collect();
        for slot in &balancers {
            slot.protect_health_checks();
        }
        let other = connections.add(HERE);
        other.protect_health_checks();
        let _newcomers = add(&connections, 2 * RESERVE);
        assert!(!is_evicted(&other) && !balancers.iter().any(is_evicted));
        drop(balancers);
        assert_eq!(connections.open().balancers, 0);
        assert_eq!(connections.open().health_only, 1);
    }

    #[test]
    fn only_authenticated_connections_count_against_the_limit() {
        let connections = connections(1);
        let _silent = add(&connections, RESERVE);
        let first = connections.add(HERE);
        first.begin_call();
        first.authenticate().unwrap();
        first.authenticate().unwrap();
        let second = connections.add(HERE);
        second.protect_health_checks();
        assert!(!second.is_over_limit(), "it may only check health");
        assert!(matches!(
            second.authenticate(),
            Err(Error::TooManyConnections)
        ));
        assert!(second.is_over_limit());
        drop(first);
        second.authenticate().unwrap();
        assert!(!second.is_over_limit());
    }

    #[test]
    fn the_client_with_the_most_connections_loses_one() {
        let connections = connections(1);
        let other = connections.add("192.0.2.7".parse().unwrap());
        let flood = add(&connections, RESERVE + 100);
        assert_eq!(flood.iter().filter(|it| is_evicted(it)).count(), 100);
        assert!(!is_evicted(&other));
        let flood = (0..2 * RESERVE).map(|host| {
            let host = format!("2001:db8::{host:x}");
            connections.add(host.parse().unwrap())
        });
        let flood: Vec<_> = flood.collect();
        assert!(flood.iter().any(is_evicted), "a network is one client");
        assert!(!is_evicted(&other));
    }

    #[test]
    fn the_connection_that_is_idle_for_longest_makes_room() {
        let connections = connections(3);
        let authenticated: Vec<_> = (0..3)
            .map(|_| {
                let slot = connections.add(HERE);
                slot.begin_call();
                slot.authenticate().unwrap();
                slot
            })
            .collect();
        let is_retired = |index: usize| authenticated[index].retired().now_or_never().is_some();
        let newcomer = connections.add(HERE);
        newcomer.begin_call();
        assert!(newcomer.authenticate().is_err(), "all have calls");
        authenticated[2].end_call();
        authenticated[1].end_call();
        newcomer.authenticate().unwrap();
        assert!(!is_retired(0) && !is_retired(1) && is_retired(2));
        let newcomer = connections.add(HERE);
        newcomer.begin_call();
        newcomer.authenticate().unwrap();
        assert!(!is_retired(0) && is_retired(1));
        // A retired connection may still make calls until it is closed.
        authenticated[1].authenticate().unwrap();
        drop(authenticated);
        assert_eq!(connections.open().authenticated.len(), 2);
    }
}
