//! The open connections: which count against the limit, and which one is evicted.
//!
//! Only an authenticated call makes a connection count against `--max-connections`. A
//! client without a credential therefore cannot lock out clients that have one, no matter
//! how many connections it opens.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    domain::error::{Error, Result},
    ops::metrics::ConnectionMetrics,
};

/// Connections beyond the limit that stay open. They answer calls with an error that names
/// the limit, and they answer health checks.
const RESERVE: usize = 32;

/// Connections that health checks protect from eviction, for as long as they are open: a
/// load balancer has one or two.
/// Half of the reserve, so that a flood of health checks leaves room for newcomers.
const MAX_HEALTH_ONLY: usize = 16;

/// Minimum time between two warnings, because a flood of connections would fill the log.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The open connections.
pub struct Connections {
    limit: usize,
    metrics: ConnectionMetrics,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Connections without an authenticated call, oldest first.
    evictable: BTreeMap<u64, Arc<Notify>>,
    authenticated: usize,
    health_only: usize,
    next_id: u64,
    warned_at: Option<Instant>,
}

impl Connections {
    /// Makes an empty set, of which `limit` connections may make authenticated calls.
    #[must_use]
    pub fn new(limit: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Connections {
            limit,
            metrics,
            open: Mutex::default(),
        })
    }

    /// Adds a connection. If the limit and the reserve are used up, evicts the oldest
    /// connection without an authenticated call. There always is one, because the
    /// protected connections are fewer than the limit and the reserve.
    pub fn add(self: &Arc<Self>) -> Arc<ConnectionSlot> {
        let mut open = self.open();
        let count = open.evictable.len() + open.authenticated + open.health_only;
        if count >= self.limit.saturating_add(RESERVE)
            && let Some((_, evicted)) = open.evictable.pop_first()
        {
            evicted.notify_one();
        }
        let slot = ConnectionSlot {
            connections: Arc::clone(self),
            id: open.next_id,
            evicted: Arc::default(),
            is_authenticated: AtomicBool::new(false),
            is_health_only: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
        };
        open.next_id += 1;
        open.evictable.insert(slot.id, Arc::clone(&slot.evicted));
        self.metrics.open.inc();
        Arc::new(slot)
    }

    fn is_full(&self) -> bool {
        self.open().authenticated >= self.limit
    }

    fn warn(&self) {
        let mut open = self.open();
        let is_due = |at: Instant| at.elapsed() >= WARNING_INTERVAL;
        if open.warned_at.is_none_or(is_due) {
            open.warned_at = Some(Instant::now());
            tracing::warn!(
                limit = self.limit,
                authenticated = open.authenticated,
                unauthenticated = open.evictable.len() + open.health_only,
                "connections over the limit are closed"
            );
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of one connection among all open ones, until it is dropped.
pub struct ConnectionSlot {
    connections: Arc<Connections>,
    id: u64,
    evicted: Arc<Notify>,
    // These three only go from false to true. The first two change under the lock.
    is_authenticated: AtomicBool,
    is_health_only: AtomicBool,
    is_refused: AtomicBool,
}

impl ConnectionSlot {
    /// Notes an authenticated call. From the first one on, the connection counts against
    /// the limit and is never evicted.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`] if the limit is reached.
    pub fn authenticate(&self) -> Result<()> {
        if self.is_authenticated() {
            return Ok(());
        }
        let mut open = self.connections.open();
        // Another call of this connection may have been faster.
        if self.is_authenticated() {
            return Ok(());
        }
        if open.authenticated >= self.connections.limit {
            drop(open);
            self.refuse();
            return Err(Error::TooManyConnections);
        }
        open.remove(self);
        open.authenticated += 1;
        self.is_authenticated.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Notes a health or reflection call. It protects the connection from eviction, unless
    /// too many others are protected already.
    pub fn protect_health_checks(&self) {
        let mut open = self.connections.open();
        let is_protected = self.is_authenticated() || self.is_health_only();
        if !is_protected && open.health_only < MAX_HEALTH_ONLY {
            open.remove(self);
            open.health_only += 1;
            self.is_health_only.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
        self.refuse();
    }

    /// Returns whether the connection is over the limit: an authenticated call on it would
    /// be rejected, or has been. Connections with only health checks never are.
    pub(super) fn is_over_limit(&self) -> bool {
        let may_stay = self.is_health_only() && !self.is_refused.load(Ordering::Relaxed);
        !self.is_authenticated() && !may_stay && self.connections.is_full()
    }

    /// Counts a connection that the limit turns away, once.
    pub(super) fn refuse(&self) {
        if !self.is_refused.swap(true, Ordering::Relaxed) {
            self.connections.metrics.refused_at_limit.inc();
            self.connections.warn();
        }
    }

    fn is_authenticated(&self) -> bool {
        self.is_authenticated.load(Ordering::Relaxed)
    }

    fn is_health_only(&self) -> bool {
        self.is_health_only.load(Ordering::Relaxed)
    }
}

impl Open {
    /// Removes a connection from the group that it is in.
    fn remove(&mut self, slot: &ConnectionSlot) {
        if slot.is_authenticated() {
            self.authenticated -= 1;
        } else if slot.is_health_only() {
            self.health_only -= 1;
        } else {
            self.evictable.remove(&slot.id);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.open().remove(self);
        self.connections.metrics.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::ops::metrics::Metrics;

    fn connections(limit: usize) -> Arc<Connections> {
        let metrics = Metrics::new().unwrap();
        Connections::new(limit, metrics.connections().clone())
    }

    fn add(connections: &Arc<Connections>, count: usize) -> Vec<Arc<ConnectionSlot>> {
        (0..count).map(|_| connections.add()).collect()
    }

    fn is_evicted(slot: &Arc<ConnectionSlot>) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_connection_without_an_authenticated_call_is_evicted() {
        let connections = connections(1);
        let authenticated = connections.add();
        authenticated.authenticate().unwrap();
        let health_only = connections.add();
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
    }

    #[test]
    fn only_authenticated_connections_count_against_the_limit() {
        let connections = connections(1);
        let _silent = add(&connections, RESERVE);
        let first = connections.add();
        first.authenticate().unwrap();
        first.authenticate().unwrap();
        let second = connections.add();
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
}
