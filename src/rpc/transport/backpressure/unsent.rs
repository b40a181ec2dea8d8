//! The responses that HTTP/2 has taken from their calls, and that its client does not read.
//!
//! HTTP/2 takes a part of each response ahead, as far as the flow-control windows allow. Usually it has
//! sent them a moment later. While the socket takes no more bytes, they count against the byte budget,
//! and the connection stalls.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::rpc::transport::{
    byte_budget::{ByteBudget, ResponseBytes},
    owner::Owner,
};

/// The responses of one connection that are not sent yet.
pub(super) struct Unsent {
    /// The bytes that HTTP/2 has taken, less those that the socket has.
    bytes: AtomicUsize,
    is_blocked: AtomicBool,
    blocked: Mutex<Option<Blocked>>,
    budget: Arc<ByteBudget>,
}

/// A socket that takes no bytes.
struct Blocked {
    since: Instant,
    _held: ResponseBytes,
}

impl Unsent {
    /// Makes those of a connection without responses.
    pub(super) fn new(budget: Arc<ByteBudget>) -> Self {
        Unsent {
            bytes: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            blocked: Mutex::default(),
            budget,
        }
    }

    /// Counts bytes of a response that HTTP/2 takes.
    pub(super) fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that the socket takes. Those of headers are among them, so never less is sent than
    /// counted.
    pub(super) fn send(&self, bytes: usize) {
        let subtract = |unsent: usize| Some(unsent.saturating_sub(bytes));
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        if self.is_blocked.load(Ordering::Relaxed) {
            self.is_blocked.store(false, Ordering::Relaxed);
            *self.blocked() = None;
        }
    }

    /// Notes that the socket takes no bytes now. All that are not sent count against the share of the
    /// connection's owner.
    pub(super) fn block(&self, owner: Owner) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.is_blocked.store(true, Ordering::Relaxed);
        let mut blocked = self.blocked();
        let since = blocked.take().map_or_else(Instant::now, |it| it.since);
        *blocked = Some(Blocked {
            since,
            _held: ResponseBytes::hold(&self.budget, owner, bytes),
        });
    }

    /// Returns whether the socket has taken no bytes for this time, though there were some.
    pub(super) fn is_stalled(&self, timeout: Duration) -> bool {
        let blocked = self.blocked();
        blocked
            .as_ref()
            .is_some_and(|it| it.since.elapsed() >= timeout)
    }

    fn blocked(&self) -> MutexGuard<'_, Option<Blocked>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
