//! What a call knows of the connection that it came on, and the connection of its calls.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::eviction::Guest;

/// How long the other end may take an answer no further, beyond the longest call.
const TAKING: Duration = Duration::from_secs(10);

/// The other end of a connection. Every call carries one.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The subject of its certificate, if it showed one; it is one that we trust.
    pub subject: Option<String>,
    /// Whether the connection is one too many: it is only told so.
    pub is_surplus: bool,
    /// The connection, as those know it who have to choose which one is to go.
    pub guest: Arc<Guest>,
    calls: Mutex<Calls>,
}

/// The calls of a connection that are under way.
#[derive(Debug)]
struct Calls {
    /// By their numbers: until when each must have ended, or have been taken further.
    open: BTreeMap<u64, Instant>,
    /// Those that are never cut off: for health and reflection.
    endless: usize,
    /// Those of them whose answers have no end.
    streams: usize,
    next: u64,
    /// Since when there are none.
    idle_since: Instant,
}

impl Peer {
    /// The other end of a connection that was just made.
    #[must_use]
    pub fn new(
        address: SocketAddr,
        subject: Option<String>,
        is_surplus: bool,
        guest: Arc<Guest>,
    ) -> Arc<Self> {
        Arc::new(Peer {
            address,
            subject,
            is_surplus,
            guest,
            calls: Mutex::new(Calls {
                open: BTreeMap::new(),
                endless: 0,
                streams: 0,
                next: 0,
                idle_since: Instant::now(),
            }),
        })
    }

    /// Makes the peer of a connection that carries no calls, for tests.
    #[cfg(test)]
    pub(crate) fn for_test(address: SocketAddr) -> Arc<Self> {
        Peer::new(address, None, false, Arc::default())
    }

    /// Notes that a call begins, which takes `longest` at most. It ends when what is
    /// answered is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, longest: Duration) -> OpenCall {
        let mut calls = self.calls();
        let number = calls.next;
        calls.next += 1;
        calls.open.insert(number, Instant::now() + longest + TAKING);
        OpenCall {
            peer: Arc::clone(self),
            kind: Kind::Limited(number),
        }
    }

    /// Notes that a call begins that may go on for ever, or whose answer, a stream, may.
    #[must_use]
    pub fn begin_endless(self: &Arc<Self>, is_stream: bool) -> OpenCall {
        let mut calls = self.calls();
        calls.endless += 1;
        calls.streams += usize::from(is_stream);
        OpenCall {
            peer: Arc::clone(self),
            kind: Kind::Endless { is_stream },
        }
    }

    /// How many answers without end there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.calls().streams
    }

    /// For how long there have been no calls; `None` while there are some.
    #[must_use]
    pub fn idle_for(&self) -> Option<Duration> {
        let calls = self.calls();
        calls.is_idle().then(|| calls.idle_since.elapsed())
    }

    /// Whether a call is there that must have ended: its answer is ready, and the
    /// other end does not take it.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let now = Instant::now();
        self.calls().open.values().any(|end| *end <= now)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.endless == 0
    }
}

/// A call that is under way, until this is dropped.
#[derive(Debug)]
pub struct OpenCall {
    peer: Arc<Peer>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Limited(u64),
    Endless { is_stream: bool },
}

impl OpenCall {
    /// Notes that its answer is ready, or taken further: the time that the other end
    /// has for the rest begins anew.
    pub fn progress(&self) {
        if let Kind::Limited(number) = self.kind
            && let Some(end) = self.peer.calls().open.get_mut(&number)
        {
            *end = Instant::now() + TAKING;
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.peer.calls();
        match self.kind {
            Kind::Limited(number) => drop(calls.open.remove(&number)),
            Kind::Endless { is_stream } => {
                calls.endless -= 1;
                calls.streams -= usize::from(is_stream);
            }
        }
        if calls.is_idle() {
            calls.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Arc<Peer> {
        Peer::new(([127, 0, 0, 1], 7).into(), None, false, Arc::default())
    }

    #[test]
    fn a_connection_is_idle_while_it_has_no_calls() {
        let peer = peer();
        assert!(peer.idle_for().is_some());
        let call = peer.begin(Duration::from_secs(60));
        let watch = peer.begin_endless(true);
        assert_eq!(peer.streams(), 1);
        drop(call);
        assert_eq!(peer.idle_for(), None);
        drop(watch);
        assert!(peer.idle_for().is_some());
        assert_eq!(peer.streams(), 0);
    }

    #[test]
    fn a_connection_is_stalled_by_a_call_that_goes_no_further() {
        let peer = peer();
        let _watch = peer.begin_endless(true);
        let new = peer.begin(Duration::from_secs(60));
        assert!(!peer.is_stalled());
        let age = |call: &OpenCall| match call.kind {
            Kind::Limited(number) => peer.calls().open.insert(number, Instant::now()),
            Kind::Endless { .. } => None,
        };
        let old = peer.begin(Duration::from_secs(60));
        age(&old);
        assert!(peer.is_stalled());
        old.progress();
        assert!(!peer.is_stalled());
        age(&new);
        drop(new);
        assert!(!peer.is_stalled());
    }
}
