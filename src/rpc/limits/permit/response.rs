//! The bytes of a response in the budget: reserved before it is encoded, counted until the client has
//! taken them.

use std::sync::{Arc, atomic::Ordering};

use super::{CURRENT, Kind, Permit};
use crate::domain::error::{Error, Overload, Result};

impl Permit {
    /// Returns whether a message of a stream fits into the share of the owner.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.is_administrator() || self.budget.has_room(self.owner(), Kind::Response, bytes)
    }

    /// Reserves bytes of the response. Those of a write may exceed the byte budget, because its
    /// work is done; later requests are rejected instead. So may those of an administrator, and of a
    /// stream, which has looked for room.
    pub(super) fn reserve(&self, bytes: usize) -> Result<()> {
        if !self.is_read || self.is_administrator() || self.is_stream() {
            let answered = self.answered.swap(0, Ordering::Relaxed);
            self.reserve_beyond_share(bytes.saturating_sub(answered));
            return Ok(());
        }
        if !self
            .budget
            .add_to_share(self.owner(), Kind::Response, bytes)
        {
            self.is_rejected.store(true, Ordering::Relaxed);
            return Err(Error::Overloaded(Overload::ResponseMemory));
        }
        self.note_reserved(bytes);
        Ok(())
    }

    pub(super) fn reserve_beyond_share(&self, bytes: usize) {
        let owner = self.owner();
        self.budget.add_beyond_share(owner, Kind::Response, bytes);
        self.note_reserved(bytes);
    }

    fn note_reserved(&self, bytes: usize) {
        self.shared.fetch_add(bytes, Ordering::Relaxed);
        self.response.fetch_add(bytes, Ordering::Relaxed);
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns whether the response was not encoded, because the byte budget is exhausted.
    pub(in crate::rpc::limits) fn is_rejected(&self) -> bool {
        self.is_rejected.load(Ordering::Relaxed)
    }

    /// Counts bytes of the response, in place of those that are reserved.
    pub(in crate::rpc::limits) fn count_response(&self, bytes: usize) {
        self.call.wrote(bytes);
        self.budget.add(bytes);
        self.response.fetch_add(bytes, Ordering::Relaxed);
        let reserved = self.reserved.swap(0, Ordering::Relaxed);
        self.response.fetch_sub(reserved, Ordering::Relaxed);
        self.budget.release(reserved);
    }

    /// Notes that the client has read a part of the response. Releases its bytes if others may follow
    /// for as long as the call lasts.
    pub(in crate::rpc::limits) fn read(&self, bytes: usize) {
        self.call.read(bytes);
        if !self.is_stream() {
            return;
        }
        let held = &self.response;
        let bytes = held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                Some(held.saturating_sub(bytes))
            })
            .map_or(0, |held| held.min(bytes));
        self.budget.release(bytes);
        let shared = self
            .shared
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |shared| {
                Some(shared.saturating_sub(bytes))
            });
        let shared = shared.map_or(0, |shared| shared.min(bytes));
        if shared > 0 {
            self.budget
                .remove_from_share(self.owner(), Kind::Response, shared);
        }
    }

    /// Polls a part of a response that is encoded only now, as a part of the call.
    pub(in crate::rpc::limits) fn poll_response<T>(
        self: &Arc<Self>,
        poll: impl FnOnce() -> T,
    ) -> T {
        match self.is_stream() {
            true => CURRENT.sync_scope(Arc::clone(self), poll),
            false => poll(),
        }
    }
}
