//! The slot of one connection among all open ones.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{ADMINISTRATOR_CONNECTIONS, Connections, MAX_HEALTH_ONLY};
use crate::{
    domain::{
        error::{Error, Result},
        id::TokenId,
    },
    ops::metrics::ConnectionMetrics,
    rpc::transport::refused_calls::ConnectionCalls,
    util::{net::client_network, shares::Share},
};

/// Minimum time between two searches of a slot for one connection. A search visits all connections
/// under their lock, and a connection without a slot may make calls at any rate.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// The slot of one connection among all open ones, until it is dropped.
pub struct ConnectionSlot(pub(super) Arc<Slot>);

/// The entry of a connection in the set of connections.
pub(super) struct Slot {
    connections: Arc<Connections>,
    pub(super) id: u64,
    /// The address of the client.
    pub(super) client: IpAddr,
    /// Whether the client is a known load balancer.
    pub(super) is_balancer: bool,
    evicted: Arc<Notify>,
    retired: Notify,
    /// Cancelled if the connection has to close for that of another token, with calls in progress.
    reclaimed: CancellationToken,
    /// The token of the latest call; `None` without tokens.
    owner: Mutex<Option<TokenId>>,
    /// The number of calls in progress, without health and reflection calls.
    calls: AtomicUsize,
    /// The number of the last call, in the order of their ends. Before the first end, the number at
    /// the first authenticated call.
    last_call: AtomicU64,
    /// When a slot for it was last searched.
    searched_at: Mutex<Option<Instant>>,
    refused_calls: ConnectionCalls,
    // These only go from false to true. The first two change under the lock.
    is_authenticated: AtomicBool,
    is_health_only: AtomicBool,
    is_refused: AtomicBool,
    has_too_many_refused_calls: AtomicBool,
}

impl ConnectionSlot {
    /// Notes an authenticated call of a token; `None` without tokens. From the first one on, the
    /// connection counts against the limit and against the share of the token. At the limit, another
    /// connection may have to close for it, unless it is one of the few of administrators beside the
    /// limit.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`] if the limit is reached, and no connection has to close.
    pub fn authenticate(&self, token_id: Option<TokenId>, is_administrator: bool) -> Result<()> {
        let slot = &self.0;
        *slot.lock_owner() = token_id;
        if slot.is_authenticated() {
            return Ok(());
        }
        let connections = &slot.connections;
        let mut open = connections.open();
        // Another call of this connection may have been faster.
        if slot.is_authenticated() {
            return Ok(());
        }
        let limit = match is_administrator {
            true => connections.limit.saturating_add(ADMINISTRATOR_CONNECTIONS),
            false => connections.limit,
        };
        let is_full = open.authenticated.len() >= limit;
        let may_search = || slot.is_search_due();
        if is_full && !(may_search() && open.authenticated.make_room(token_id, connections.limit)) {
            drop(open);
            self.refuse();
            return Err(Error::TooManyConnections);
        }
        open.remove(slot);
        open.authenticated.insert(slot);
        slot.note_call();
        slot.is_authenticated.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Notes a health or reflection call. It protects the connection from eviction, unless
    /// too many others are protected already. Those of known load balancers always are.
    pub fn protect_health_checks(&self) {
        let slot = &self.0;
        let is_protected = || slot.is_authenticated() || slot.is_health_only();
        // Health calls do not wait for the lock of all connections.
        if is_protected() {
            return;
        }
        let mut open = slot.connections.open();
        let may_protect = slot.is_balancer || open.health_only < MAX_HEALTH_ONLY;
        if !is_protected() && may_protect {
            open.remove(slot);
            *open.protected(slot) += 1;
            slot.is_health_only.store(true, Ordering::Relaxed);
        }
    }

    /// Counts a call that was refused. The connection closes if it makes too many and has never had
    /// an authenticated call.
    pub fn count_refused_call(&self) {
        let slot = &self.0;
        let all = &slot.connections.refused_calls;
        if !slot.is_authenticated() && !all.count(slot.client, &slot.refused_calls) {
            slot.has_too_many_refused_calls
                .store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the connection has to close because of its refused calls.
    pub(in crate::rpc::transport) fn has_too_many_refused_calls(&self) -> bool {
        let slot = &self.0;
        slot.has_too_many_refused_calls.load(Ordering::Relaxed) && !slot.is_authenticated()
    }

    /// Returns the metrics of connections.
    pub(in crate::rpc::transport) fn metrics(&self) -> &ConnectionMetrics {
        &self.0.connections.metrics
    }

    /// Takes a share of the bytes of headers that have not arrived completely.
    pub(in crate::rpc::transport) fn share_headers(&self, bytes: usize) -> Option<Share<IpAddr>> {
        let connections = &self.0.connections;
        let shares = match self.0.is_authenticated() {
            true => &connections.authenticated_headers,
            false => &connections.headers,
        };
        shares.take(client_network(self.0.client), bytes)
    }

    /// Notes that a call begins that is neither a health nor a reflection call.
    pub(in crate::rpc::transport) fn begin_call(&self) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that such a call has ended.
    pub(in crate::rpc::transport) fn end_call(&self) {
        self.0.note_call();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until the connection is evicted, which ends it at once.
    pub(in crate::rpc::transport) async fn evicted(&self) {
        self.0.evicted.notified().await;
        self.refuse();
    }

    /// Waits until the connection has to close gracefully, because another one needs its slot.
    pub(in crate::rpc::transport) async fn retired(&self) {
        self.0.retired.notified().await;
        match self.0.reclaimed.is_cancelled() {
            true => self.note_reclaimed(),
            false => self.refuse(),
        }
    }

    /// Waits until the connection has to close for that of another token. Its calls that wait for the
    /// client end, because the client decides how long they wait.
    pub(in crate::rpc::transport) fn reclaimed(&self) -> WaitForCancellationFutureOwned {
        self.0.reclaimed.clone().cancelled_owned()
    }

    /// Returns whether the connection is over the limit: an authenticated call on it would
    /// be rejected, or has been. Connections with only health checks never are.
    pub(in crate::rpc::transport) fn is_over_limit(&self) -> bool {
        let slot = &self.0;
        let may_stay = slot.is_health_only() && !slot.is_refused.load(Ordering::Relaxed);
        !slot.is_authenticated() && !may_stay && slot.connections.is_full()
    }

    /// Counts a connection that the limit turns away, once.
    pub(in crate::rpc::transport) fn refuse(&self) {
        if !self.0.is_refused.swap(true, Ordering::Relaxed) {
            self.0.connections.metrics.refused_at_limit.inc();
            self.0.connections.warn_of_limit();
        }
    }

    /// Counts a connection that its token loses to another one, and warns of it.
    fn note_reclaimed(&self) {
        if !self.0.is_refused.swap(true, Ordering::Relaxed) {
            self.0.connections.metrics.refused_for_share.inc();
            self.0.connections.warn_of_share(self.0.owner());
        }
    }

    /// Counts a connection that is closed for a flood of frames, or for its headers, and warns of it.
    pub(in crate::rpc::transport) fn note_closed(&self, client: SocketAddr) {
        self.0.connections.note_closed(client);
    }

    /// Counts a connection that is closed for its refused calls, and warns of it.
    pub(in crate::rpc::transport) fn note_refused_calls(&self, client: SocketAddr) {
        self.0.connections.note_refused_calls(client);
    }
}

impl Slot {
    pub(super) fn new(connections: Arc<Connections>, id: u64, client: IpAddr) -> Self {
        Slot {
            is_balancer: connections.health_from.contains(client),
            connections,
            id,
            client,
            evicted: Arc::default(),
            retired: Notify::new(),
            reclaimed: CancellationToken::new(),
            owner: Mutex::default(),
            calls: AtomicUsize::new(0),
            last_call: AtomicU64::new(0),
            searched_at: Mutex::default(),
            is_authenticated: AtomicBool::new(false),
            is_health_only: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            refused_calls: ConnectionCalls::default(),
            has_too_many_refused_calls: AtomicBool::new(false),
        }
    }

    /// Returns whether [`SEARCH_INTERVAL`] has passed since a slot was last searched, and notes the time.
    fn is_search_due(&self) -> bool {
        let last = self.searched_at.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= SEARCH_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// Returns what evicts the connection.
    pub(super) fn evicted(&self) -> Arc<Notify> {
        Arc::clone(&self.evicted)
    }

    /// Tells the connection to close gracefully. If it is busy, its calls that wait for the client end.
    pub(super) fn retire(&self, is_busy: bool) {
        if is_busy {
            self.reclaimed.cancel();
        }
        self.retired.notify_one();
    }

    /// Notes that a call has ended, or that the first one was authenticated.
    fn note_call(&self) {
        let number = self.connections.next_call.fetch_add(1, Ordering::Relaxed);
        self.last_call.store(number, Ordering::Relaxed);
    }

    /// Returns whether a call is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Returns the number of the last call.
    pub(super) fn last_call(&self) -> u64 {
        self.last_call.load(Ordering::Relaxed)
    }

    /// Returns the token of the latest call; `None` without tokens.
    pub(super) fn owner(&self) -> Option<TokenId> {
        *self.lock_owner()
    }

    fn lock_owner(&self) -> MutexGuard<'_, Option<TokenId>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.is_authenticated.load(Ordering::Relaxed)
    }

    pub(super) fn is_health_only(&self) -> bool {
        self.is_health_only.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let connections = &self.0.connections;
        connections.metrics.open.dec();
        connections.open().remove(&self.0);
        if !self.0.is_authenticated() {
            connections.refused_calls.count_connection(self.0.client);
        }
    }
}
