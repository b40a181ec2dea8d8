//! The client's end of a connection, and the calls in progress on it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    backpressure::{ConnectionLoad, InWork},
    eviction::ConnectionSlot,
    owner::Owner,
};

/// How many times as long as for a call a client may read nothing at all before a stream stalls the
/// connection.
const STREAM_PATIENCE: u32 = 2;

/// The client's end of a connection. Every request carries it as an extension.
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The subject of the client certificate, which a trusted root has signed.
    pub subject: Option<String>,
    /// The slot of the connection.
    pub slot: Arc<ConnectionSlot>,
    /// The calls in work.
    pub load: Arc<ConnectionLoad>,
    /// Cancelled when the connection begins to close, so that its streams end.
    pub closing: CancellationToken,
    stall_timeout: Duration,
    calls: Mutex<Calls>,
}

struct Calls {
    /// The calls in progress, by number.
    open: HashMap<u64, Call>,
    next_number: u64,
    /// Time at which the last call ended.
    idle_since: Instant,
    /// Time at which the client last read a part of an answer.
    progressed_at: Instant,
}

struct Call {
    /// Deadline for the answer; health and reflection calls have none.
    deadline: Option<Instant>,
    /// Whether it is a health watch or a reflection stream.
    is_stream: bool,
    /// Whether it may wait while the client reads others: the answer is a stream, which ends by itself
    /// if it is not read.
    is_excused: bool,
    /// The bytes of the messages so far that the client has not read.
    unread: usize,
    /// How long the call may take.
    max_duration: Duration,
    /// Set when HTTP/2 has the whole answer, and sends it after those of other calls: until when that
    /// excuses a late answer.
    queued_until: Option<Instant>,
}

impl Call {
    fn new(max_duration: Duration, stall_timeout: Duration) -> Self {
        Call {
            deadline: Some(Instant::now() + max_duration + stall_timeout),
            is_stream: false,
            is_excused: false,
            unread: 0,
            max_duration,
            queued_until: None,
        }
    }
}

impl Peer {
    /// Makes the peer of a new connection. A client that does not read an answer for
    /// `stall_timeout` stalls the connection.
    #[must_use]
    pub fn new(
        address: SocketAddr,
        subject: Option<String>,
        slot: Arc<ConnectionSlot>,
        load: Arc<ConnectionLoad>,
        stall_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Peer {
            address,
            subject,
            slot,
            load,
            closing: CancellationToken::new(),
            stall_timeout,
            calls: Mutex::new(Calls {
                open: HashMap::new(),
                next_number: 0,
                idle_since: Instant::now(),
                progressed_at: Instant::now(),
            }),
        })
    }

    /// Makes the peer of a connection that carries no calls, for tests.
    #[cfg(test)]
    pub(crate) fn for_test(address: SocketAddr) -> Arc<Self> {
        use crate::{
            ops::metrics::Metrics,
            rpc::transport::{backpressure::Load, eviction::Connections},
            util::net::KnownClients,
        };
        let metrics = Metrics::new().unwrap();
        let connections =
            Connections::new(1, KnownClients::default(), metrics.connections().clone());
        Peer::new(
            address,
            None,
            connections.add(address.ip()),
            ConnectionLoad::new(&Load::new(1), address.ip()),
            Duration::from_secs(10),
        )
    }

    /// Notes that a call begins, which takes `max_duration` at most. The call ends when
    /// the returned value is dropped.
    #[must_use]
    pub fn begin_call(self: &Arc<Self>, max_duration: Duration) -> OpenCall {
        self.begin(Call::new(max_duration, self.stall_timeout))
    }

    /// Notes that a call begins that is answered by a stream, and takes `max_duration` at most until
    /// the first message. The call ends when the returned value is dropped.
    #[must_use]
    pub fn begin_stream(self: &Arc<Self>, max_duration: Duration) -> OpenCall {
        self.begin(Call {
            is_excused: true,
            ..Call::new(max_duration, self.stall_timeout)
        })
    }

    /// Notes that a health or reflection call begins, which may last as long as the
    /// connection.
    #[must_use]
    pub fn begin_infrastructure_call(self: &Arc<Self>, is_stream: bool) -> OpenCall {
        self.slot.protect_health_checks();
        self.begin(Call {
            deadline: None,
            is_stream,
            ..Call::new(Duration::ZERO, Duration::ZERO)
        })
    }

    fn begin(self: &Arc<Self>, call: Call) -> OpenCall {
        // A health watch may never end, and must not keep the slot from another client.
        let is_infrastructure = call.deadline.is_none();
        if !is_infrastructure {
            self.slot.begin_call();
        }
        let mut calls = self.calls();
        let number = calls.next_number;
        calls.next_number += 1;
        calls.open.insert(number, call);
        OpenCall {
            peer: Arc::clone(self),
            number,
            is_infrastructure,
        }
    }

    /// Returns the number of health watches and reflection streams.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        let calls = self.calls();
        calls.open.values().filter(|call| call.is_stream).count()
    }

    /// Returns the time since the last call ended; `None` while a call is in progress.
    #[must_use]
    pub fn idle_for(&self) -> Option<Duration> {
        let calls = self.calls();
        let is_idle = calls.open.is_empty();
        is_idle.then(|| calls.idle_since.elapsed())
    }

    /// Returns whether the client has stopped reading: the answer of a call is ready, and
    /// its deadline has passed. An answer that waits for others to be sent is late only if the client
    /// reads none of them, or after the maximum duration of a call. A stream is late only if it has a
    /// message to read and the client reads no answer at all, because it may work on one stream and leave
    /// another. Bookmarks of the other one come every 5 s. While the connection waits for a slot or is
    /// paused, the client cannot tell that it has read. After a pause it has another `stall_timeout`.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let now = Instant::now();
        let unread_until = self.load.unread_until();
        let was_paused = unread_until.is_some_and(|end| now < end + self.stall_timeout);
        if was_paused || self.load.free_slots() == 0 {
            return false;
        }
        let calls = self.calls();
        let is_read_for = |time| now < calls.progressed_at + time;
        let is_read = is_read_for(self.stall_timeout);
        let is_stream_read = is_read_for(self.stall_timeout * STREAM_PATIENCE);
        let is_late = |call: &Call| {
            let is_queued = call.queued_until.is_some_and(|until| now < until);
            // A stream without a message for a while has nothing to read, as within a commit.
            let has_nothing = call.is_excused && call.unread == 0;
            let may_wait = is_queued && is_read || call.is_excused && is_stream_read || has_nothing;
            call.deadline.is_some_and(|deadline| deadline <= now) && !may_wait
        };
        calls.open.values().any(is_late)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in progress, until it is dropped.
pub struct OpenCall {
    peer: Arc<Peer>,
    number: u64,
    is_infrastructure: bool,
}

impl OpenCall {
    /// Notes that the answer is ready, or that the client has read a part of it. The
    /// client then has another `stall_timeout` for the rest.
    pub fn progress(&self) {
        self.extend(&mut self.peer.calls(), Instant::now());
    }

    /// Notes that HTTP/2 has the whole answer.
    pub fn queued(&self) {
        if let Some(call) = self.peer.calls().open.get_mut(&self.number) {
            call.queued_until = Some(Instant::now() + call.max_duration);
        }
    }

    /// Notes that a message of the answer is ready to be read. The client has the whole time for it if
    /// it has read the ones before.
    pub fn wrote(&self, bytes: usize) {
        let mut calls = self.peer.calls();
        let Some(call) = calls.open.get_mut(&self.number) else {
            return;
        };
        let had_read_all = call.unread == 0;
        call.unread += bytes;
        if had_read_all && call.is_excused {
            self.extend(&mut calls, Instant::now());
        }
    }

    /// Notes that the client has read a part of the answer.
    pub fn read(&self, bytes: usize) {
        let (mut calls, now) = (self.peer.calls(), Instant::now());
        calls.progressed_at = now;
        if let Some(call) = calls.open.get_mut(&self.number) {
            call.unread = call.unread.saturating_sub(bytes);
        }
        self.extend(&mut calls, now);
    }

    /// Returns the address of the client.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.peer.address.ip()
    }

    /// Notes whose call it is.
    pub fn set_owner(&self, owner: Owner) {
        self.peer.load.set_owner(owner);
    }

    /// Waits until the connection has to close for that of another token.
    pub fn reclaimed(&self) -> WaitForCancellationFutureOwned {
        self.peer.slot.reclaimed()
    }

    /// Notes that the call is in work, until the returned value is dropped. `None` for a health or
    /// reflection call, which never is.
    #[must_use]
    pub fn begin_work(&self) -> Option<Arc<InWork>> {
        (!self.is_infrastructure).then(|| self.peer.load.begin())
    }

    /// Gives the client the whole time for the next part of the answer.
    fn extend(&self, calls: &mut Calls, now: Instant) {
        let call = calls.open.get_mut(&self.number);
        if let Some(deadline) = call.and_then(|call| call.deadline.as_mut()) {
            *deadline = now + self.peer.stall_timeout;
        }
    }

    #[cfg(test)]
    fn set_deadline(&self, at: Instant) {
        let mut calls = self.peer.calls();
        let call = calls.open.get_mut(&self.number);
        *call.unwrap().deadline.as_mut().unwrap() = at;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.peer.calls();
        calls.open.remove(&self.number);
        calls.idle_since = Instant::now();
        drop(calls);
        if !self.is_infrastructure {
            self.peer.slot.end_call();
        }
    }
}

#[cfg(test)]
mod tests;
