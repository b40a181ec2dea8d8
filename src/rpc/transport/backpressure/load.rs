//! The calls in work: how many there are, and how many more a connection may begin.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::rpc::transport::owner::Owner;

/// The number of slots that are always left, however long calls wait for their batches.
const MIN_SLOTS: usize = 64;

/// The time for which a call may wait for its batch, about that of two batches. Waiting longer does not
/// make batches larger.
const MAX_QUEUE_TIME: Duration = Duration::from_millis(25);

/// The calls in work of all connections.
pub struct Load {
    /// How many calls may be in work before connections wait.
    limit: AtomicUsize,
    max_limit: usize,
    /// Whether a connection had to wait for a slot.
    was_full: AtomicBool,
    in_work: AtomicUsize,
    /// The number of owners that have calls in work.
    busy_owners: AtomicUsize,
    owners: Mutex<HashMap<Owner, Weak<OwnerLoad>>>,
}

/// The connections of one owner.
struct OwnerLoad {
    owner: Owner,
    /// The number of connections that have calls in work.
    busy_connections: AtomicUsize,
}

impl Load {
    /// Makes the load of a service that has `max_limit` slots at most.
    #[must_use]
    pub fn new(max_limit: usize) -> Arc<Self> {
        Arc::new(Load {
            limit: AtomicUsize::new(max_limit),
            max_limit,
            was_full: AtomicBool::new(false),
            in_work: AtomicUsize::new(0),
            busy_owners: AtomicUsize::new(0),
            owners: Mutex::default(),
        })
    }

    /// Adapts the number of slots to the speed of the service: a call that would only wait for its
    /// batch waits in its client instead. If connections have waited for slots, removes an eighth of
    /// the slots if calls have waited for too long, too, and otherwise adds an eighth. `queue_time` is
    /// how long calls have waited since the last time.
    pub fn adapt(&self, queue_time: Duration) {
        let was_full = self.was_full.swap(false, Ordering::Relaxed);
        let limit = self.limit();
        if !was_full {
            return;
        }
        let adapted = match queue_time > MAX_QUEUE_TIME {
            true => (limit - limit / 8).max(MIN_SLOTS),
            false => limit + limit.div_ceil(8),
        };
        let adapted = adapted.min(self.max_limit);
        self.limit.store(adapted, Ordering::Relaxed);
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    fn owner(&self, owner: Owner) -> Arc<OwnerLoad> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = owners.get(&owner).and_then(Weak::upgrade) {
            return load;
        }
        owners.retain(|_, load| load.strong_count() > 0);
        let load = Arc::new(OwnerLoad {
            owner,
            busy_connections: AtomicUsize::new(0),
        });
        owners.insert(owner, Arc::downgrade(&load));
        load
    }

    /// Notes that a connection of an owner has calls in work from now on.
    fn add_busy(&self, owner: &OwnerLoad) {
        if owner.busy_connections.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy_owners.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a connection of an owner has no calls in work any more.
    fn remove_busy(&self, owner: &OwnerLoad) {
        if owner.busy_connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.busy_owners.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the share of each connection of an owner.
    fn share(&self, owner: &OwnerLoad) -> usize {
        let owners = self.busy_owners.load(Ordering::Relaxed).max(1);
        let connections = owner.busy_connections.load(Ordering::Relaxed).max(1);
        self.limit() / owners / connections
    }
}

/// The calls in work of one connection.
pub struct ConnectionLoad {
    all: Arc<Load>,
    calls: Mutex<Calls>,
    /// The number of times that the connection was polled.
    round: AtomicU64,
    /// Wakes the task of the connection when a call ends.
    waker: AtomicWaker,
}

struct Calls {
    in_work: usize,
    /// The number of calls that have ever begun.
    begun: u64,
    owner: Arc<OwnerLoad>,
    /// The end of the last pause for resets.
    unread_until: Option<Instant>,
}

impl ConnectionLoad {
    /// Makes the load of a new connection from an address.
    #[must_use]
    pub fn new(all: &Arc<Load>, address: IpAddr) -> Arc<Self> {
        Arc::new(ConnectionLoad {
            all: Arc::clone(all),
            calls: Mutex::new(Calls {
                in_work: 0,
                begun: 0,
                owner: all.owner(Owner::address(address)),
                unread_until: None,
            }),
            round: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        })
    }

    /// Notes that a call is in work, until the returned value is dropped. Requests carry it as an
    /// extension to the limit layer.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Arc<InWork> {
        self.all.in_work.fetch_add(1, Ordering::Relaxed);
        let mut calls = self.calls();
        calls.in_work += 1;
        calls.begun += 1;
        if calls.in_work == 1 {
            self.all.add_busy(&calls.owner);
        }
        Arc::new(InWork(Arc::clone(self)))
    }

    fn end(&self) {
        self.all.in_work.fetch_sub(1, Ordering::Relaxed);
        let mut calls = self.calls();
        calls.in_work -= 1;
        if calls.in_work == 0 {
            self.all.remove_busy(&calls.owner);
        }
        drop(calls);
        self.waker.wake();
    }

    /// Notes whose calls the connection has now. Those of a proxy may be of several owners; the newest
    /// one counts.
    pub fn set_owner(&self, owner: Owner) {
        let mut calls = self.calls();
        if calls.owner.owner == owner {
            return;
        }
        let load = self.all.owner(owner);
        if calls.in_work > 0 {
            self.all.remove_busy(&calls.owner);
            self.all.add_busy(&load);
        }
        calls.owner = load;
    }

    /// Notes that the service does not read the connection until a time.
    pub(in crate::rpc::transport) fn pause_until(&self, end: Instant) {
        self.calls().unread_until = Some(end);
    }

    /// Returns the end of the last pause of the connection.
    pub(in crate::rpc::transport) fn unread_until(&self) -> Option<Instant> {
        self.calls().unread_until
    }

    /// Returns the number of connections of the owner that have calls in work.
    pub(super) fn busy_connections(&self) -> u32 {
        let calls = self.calls();
        let connections = calls.owner.busy_connections.load(Ordering::Relaxed);
        u32::try_from(connections).unwrap_or(u32::MAX)
    }

    /// Returns how many more calls the connection may begin.
    ///
    /// A connection without calls in work may begin one in any case, so none waits for another. More
    /// than half of the slots are for all; beyond them each connection has its share.
    pub(in crate::rpc::transport) fn free_slots(&self) -> usize {
        let calls = self.calls();
        let (own, share) = (calls.in_work, self.all.share(&calls.owner));
        drop(calls);
        let limit = self.all.limit();
        let free = limit.saturating_sub(self.all.in_work.load(Ordering::Relaxed));
        let slots = share
            .saturating_sub(own)
            .max(free.saturating_sub(limit / 2));
        let slots = slots.min(free).max(usize::from(own == 0));
        if slots == 0 {
            self.all.was_full.store(true, Ordering::Relaxed);
        }
        slots
    }

    /// Notes that the connection is about to be polled. All calls that it read before have begun.
    pub(in crate::rpc::transport) fn begin_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that have ever begun.
    pub(super) fn begun(&self) -> u64 {
        self.calls().begun
    }

    /// Wakes a task when the next call ends.
    pub(super) fn wake_at_end(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in work, until it is dropped.
pub struct InWork(Arc<ConnectionLoad>);

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    fn connection(all: &Arc<Load>, owner: u8) -> Arc<ConnectionLoad> {
        ConnectionLoad::new(all, [127, 0, 0, owner].into())
    }

    fn begin(load: &Arc<ConnectionLoad>, calls: usize) -> Vec<Arc<InWork>> {
        (0..calls).map(|_| load.begin()).collect()
    }

    #[test]
    fn one_connection_may_have_all_slots() {
        let load = connection(&Load::new(LIMIT), 1);
        assert_eq!(load.free_slots(), LIMIT);
        let calls = begin(&load, LIMIT - 1);
        assert_eq!(load.free_slots(), 1);
        let last = begin(&load, 2);
        assert_eq!(load.free_slots(), 0);
        drop((calls, last));
        assert_eq!(load.free_slots(), LIMIT);
    }

    #[test]
    fn a_connection_without_calls_may_begin_one() {
        let all = Load::new(LIMIT);
        let _calls = begin(&connection(&all, 1), 2 * LIMIT);
        let load = connection(&all, 1);
        assert_eq!(load.free_slots(), 1);
        let _call = load.begin();
        assert_eq!(load.free_slots(), 0);
    }

    #[test]
    fn slots_that_others_leave_can_be_used() {
        let all = Load::new(LIMIT);
        let (one, two) = (connection(&all, 1), connection(&all, 1));
        let _calls = [begin(&one, 10), begin(&two, 500)];
        // Half of the slots are its share.
        assert_eq!(one.free_slots(), 490);
        assert_eq!(two.free_slots(), 0);
        let _idle = (0..9)
            .map(|_| begin(&connection(&all, 1), 1))
            .collect::<Vec<_>>();
        assert_eq!(one.free_slots(), 80);
    }

    #[test]
    fn owners_have_equal_shares_however_many_connections_they_have() {
        let all = Load::new(LIMIT);
        let many: Vec<_> = (0..9).map(|_| connection(&all, 1)).collect();
        let _calls: Vec<_> = many.iter().map(|load| begin(load, 60)).collect();
        let single = connection(&all, 2);
        let _call = single.begin();
        assert_eq!(single.free_slots(), LIMIT - 9 * 60 - 1);
        assert_eq!(many[0].free_slots(), 0);
        single.set_owner(Owner::Address([127, 0, 0, 1].into()));
        assert_eq!(many[0].free_slots(), LIMIT / 10 - 60);
    }

    #[test]
    fn slots_follow_the_time_that_calls_wait() {
        let all = Load::new(LIMIT);
        let load = connection(&all, 1);
        let late = 2 * MAX_QUEUE_TIME;
        // Nothing waits for slots.
        all.adapt(late);
        assert_eq!(load.free_slots(), LIMIT);
        let mut calls = begin(&load, LIMIT);
        for _ in 0..100 {
            assert_eq!(load.free_slots(), 0);
            all.adapt(late);
        }
        calls.clear();
        assert_eq!(load.free_slots(), MIN_SLOTS);
        for _ in 0..100 {
            calls.extend(begin(&load, load.free_slots()));
            load.free_slots();
            all.adapt(Duration::ZERO);
        }
        assert_eq!(calls.len(), LIMIT);
    }

    #[test]
    fn owners_without_connections_are_forgotten() {
        let all = Load::new(LIMIT);
        for owner in 1..=100 {
            drop(connection(&all, owner).begin());
        }
        assert_eq!(all.busy_owners.load(Ordering::Relaxed), 0);
        assert_eq!(all.owners.lock().unwrap().len(), 1);
    }
}
