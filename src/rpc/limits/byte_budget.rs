//! The bytes of all calls in progress, and the shares of their owners.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::rpc::transport::owner::Owner;

/// The bytes of all calls in progress.
///
/// A token may hold as many bytes of responses as are still free. One alone gets half of the budget,
/// the next one half of the rest. Of requests, a token may hold four times the free bytes, so one alone
/// gets four fifths. The same holds for a small response: reads by key go on beside lists that the same
/// client does not read. So a client that does not read its responses, or does not send the end of its
/// requests, leaves bytes to others.
pub(super) struct ByteBudget {
    used: AtomicUsize,
    limit: usize,
    /// The bytes that each owner holds.
    shares: Mutex<HashMap<(Owner, Kind), usize>>,
}

/// How many bytes of unread responses an owner may have for each free byte when it writes. Responses of
/// writes are never rejected, so this keeps a client that only writes from taking all bytes.
const MAX_UNREAD_PER_FREE_BYTE: usize = 4;

/// Maximum size of a small response, in bytes: a frame of HTTP/2.
const SMALL_RESPONSE: usize = 16 * 1024;

/// The part of a call that bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The headers and the message of a request.
    Request,
    /// The message of a response.
    Response,
}

impl Kind {
    /// Returns how many bytes an owner may hold for each free one, if it takes this many more.
    fn per_free_byte(self, bytes: usize) -> usize {
        match self {
            Kind::Response if bytes > SMALL_RESPONSE => 1,
            Kind::Request | Kind::Response => 4,
        }
    }
}

impl ByteBudget {
    /// Makes an unused budget; `None` for no limit.
    pub(super) fn new(limit: Option<usize>) -> Self {
        ByteBudget {
            used: AtomicUsize::new(0),
            limit: limit.unwrap_or(usize::MAX),
            shares: Mutex::default(),
        }
    }

    /// Adds bytes, even beyond the limit.
    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Removes bytes.
    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Adds bytes to the share of an owner, if they fit.
    pub(super) fn add_to_share(&self, owner: Owner, kind: Kind, bytes: usize) -> bool {
        let mut shares = self.shares();
        let share = shares.get(&(owner, kind)).copied().unwrap_or_default();
        let fits = self.fits(share, kind, bytes);
        if fits {
            shares.insert((owner, kind), share + bytes);
            // Another call may exceed the budget at the same time. These bytes count all the same.
            self.add(bytes);
        }
        fits
    }

    /// Returns whether bytes fit into the share of an owner.
    pub(super) fn has_room(&self, owner: Owner, kind: Kind, bytes: usize) -> bool {
        let share = self.shares().get(&(owner, kind)).copied();
        self.fits(share.unwrap_or_default(), kind, bytes)
    }

    fn fits(&self, share: usize, kind: Kind, bytes: usize) -> bool {
        let free = self.limit.saturating_sub(self.used.load(Ordering::Relaxed));
        let max_share = free.saturating_mul(kind.per_free_byte(bytes));
        bytes <= free && share.saturating_add(bytes) <= max_share
    }

    /// Adds bytes to the share of an owner, even beyond the limit.
    pub(super) fn add_beyond_share(&self, owner: Owner, kind: Kind, bytes: usize) {
        *self.shares().entry((owner, kind)).or_default() += bytes;
        self.add(bytes);
    }

    /// Returns whether an owner has too many bytes of unread responses for a write.
    pub(super) fn has_unread(&self, owner: Owner) -> bool {
        let share = self.shares().get(&(owner, Kind::Response)).copied();
        let free = self.limit.saturating_sub(self.used.load(Ordering::Relaxed));
        share.is_some_and(|share| share > free.saturating_mul(MAX_UNREAD_PER_FREE_BYTE))
    }

    /// Removes bytes from the share of an owner.
    pub(super) fn remove_from_share(&self, owner: Owner, kind: Kind, bytes: usize) {
        let mut shares = self.shares();
        if let Entry::Occupied(mut share) = shares.entry((owner, kind)) {
            *share.get_mut() = share.get().saturating_sub(bytes);
            if *share.get() == 0 {
                share.remove();
            }
        }
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<(Owner, Kind), usize>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
