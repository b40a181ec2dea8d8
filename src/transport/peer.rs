//! What a call knows of the connection that it came on, and the connection of its calls.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The other end of a connection. Every call carries one.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The subject of its certificate, if it showed one; it is one that we trust.
    pub subject: Option<String>,
    /// Whether the connection is one too many: it is only told so.
    pub is_surplus: bool,
    calls: Mutex<Calls>,
}

/// The calls of a connection that are under way.
#[derive(Debug)]
struct Calls {
    /// By their numbers, and so by their age: until when each must have ended.
    open: BTreeMap<u64, Instant>,
    /// Those that may go on for ever: whoever watches the health.
    watches: usize,
    next: u64,
    /// Since when there are none.
    idle_since: Instant,
}

impl Peer {
    /// The other end of a connection that was just made.
    #[must_use]
    pub fn new(address: SocketAddr, subject: Option<String>, is_surplus: bool) -> Arc<Self> {
        Arc::new(Peer {
            address,
            subject,
            is_surplus,
            calls: Mutex::new(Calls {
                open: BTreeMap::new(),
                watches: 0,
                next: 0,
                idle_since: Instant::now(),
            }),
        })
    }

    /// Notes that a call begins, which must have ended after so long; `None` if it
    /// may go on for ever. It ends when what is answered is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, patience: Option<Duration>) -> OpenCall {
        let mut calls = self.calls();
        let number = patience.map(|patience| {
            let number = calls.next;
            calls.next += 1;
            calls.open.insert(number, Instant::now() + patience);
            number
        });
        if number.is_none() {
            calls.watches += 1;
        }
        OpenCall {
            peer: Arc::clone(self),
            number,
        }
    }

    /// For how long there have been no calls; `None` while there are some.
    #[must_use]
    pub fn idle_for(&self) -> Option<Duration> {
        let calls = self.calls();
        let is_idle = calls.open.is_empty() && calls.watches == 0;
        is_idle.then(|| calls.idle_since.elapsed())
    }

    /// Whether a call is there that must have ended: its answer is ready, and the
    /// other end does not take it.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let calls = self.calls();
        let oldest = calls.open.first_key_value();
        oldest.is_some_and(|(_, end)| *end <= Instant::now())
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way, until this is dropped.
#[derive(Debug)]
pub struct OpenCall {
    peer: Arc<Peer>,
    number: Option<u64>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.peer.calls();
        match self.number {
            Some(number) => drop(calls.open.remove(&number)),
            None => calls.watches -= 1,
        }
        if calls.open.is_empty() && calls.watches == 0 {
            calls.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Arc<Peer> {
        Peer::new(([127, 0, 0, 1], 7).into(), None, false)
    }

    #[test]
    fn a_connection_is_idle_while_it_has_no_calls() {
        let peer = peer();
        assert!(peer.idle_for().is_some());
        let call = peer.begin(Some(Duration::from_secs(60)));
        let watch = peer.begin(None);
        drop(call);
        assert_eq!(peer.idle_for(), None);
        drop(watch);
        assert!(peer.idle_for().is_some());
    }

    #[test]
    fn a_connection_is_stalled_by_a_call_that_goes_on_for_too_long() {
        let peer = peer();
        let _watch = peer.begin(None);
        let _new = peer.begin(Some(Duration::from_secs(60)));
        assert!(!peer.is_stalled());
        let peer = self::peer();
        let old = peer.begin(Some(Duration::ZERO));
        let _new = peer.begin(Some(Duration::from_secs(60)));
        assert!(peer.is_stalled());
        drop(old);
        assert!(!peer.is_stalled());
    }
}
