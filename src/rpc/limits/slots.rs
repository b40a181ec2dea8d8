//! The slots of calls in work, of which each token has a share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::error::{Error, Overload, Result},
    rpc::transport::owner::Owner,
    util::shares::{Share, Shares},
};

/// How many slots an owner may hold for each one that it leaves free: four fifths if it is alone. So
/// calls that wait, for a turn or for a row, leave slots to others.
const PER_FREE_SLOT: usize = 4;

/// Slots beside the limit, for administrators: they must get in while calls of others hold all slots.
const ADMINISTRATOR_SLOTS: usize = 16;

/// The slots of calls in work. Cheap to clone; clones share the slots.
#[derive(Clone)]
pub(super) struct CallSlots {
    shares: Arc<Shares<Owner>>,
    administrators: Arc<Semaphore>,
}

/// The slots of open streams of the journal.
pub(super) type StreamSlots = Arc<Shares<Owner>>;

/// Makes slots of streams. One owner may have four fifths of them.
pub(super) fn stream_slots(limit: usize) -> StreamSlots {
    Shares::with_multiple(limit, PER_FREE_SLOT)
}

/// The slot of a call, until it is dropped.
pub(super) struct CallSlot {
    _share: Option<Share<Owner>>,
    _administrator: Option<OwnedSemaphorePermit>,
}

impl CallSlots {
    /// Makes `limit` free slots, and those of administrators.
    pub(super) fn new(limit: usize) -> Self {
        CallSlots {
            shares: Shares::with_multiple(limit, PER_FREE_SLOT),
            administrators: Arc::new(Semaphore::new(ADMINISTRATOR_SLOTS)),
        }
    }

    /// Takes a slot for a call of an owner.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the share of the owner has none, and, for a call of an administrator,
    /// those of administrators are in use, too.
    pub(super) fn take(&self, owner: Owner, is_administrator: bool) -> Result<CallSlot> {
        let share = self.shares.take(owner, 1);
        let administrator = match &share {
            None if is_administrator => {
                let slots = Arc::clone(&self.administrators);
                Some(slots.try_acquire_owned().map_err(|_| self.full())?)
            }
            None => return Err(self.full()),
            Some(_) => None,
        };
        Ok(CallSlot {
            _share: share,
            _administrator: administrator,
        })
    }

    /// Checks that a call of an owner could take a slot now.
    ///
    /// # Errors
    /// [`Error::Overloaded`], as for [`CallSlots::take`].
    pub(super) fn check(&self, owner: Owner, is_administrator: bool) -> Result<()> {
        let has_room = self.shares.has_room(owner)
            || is_administrator && self.administrators.available_permits() > 0;
        has_room.then_some(()).ok_or_else(|| self.full())
    }

    /// Returns the error of a call without a slot.
    fn full(&self) -> Error {
        Error::Overloaded(match self.is_full() {
            true => Overload::CallsInProgress,
            false => Overload::CallsOfCaller,
        })
    }

    /// Returns whether no slot is free, but for administrators.
    pub(super) fn is_full(&self) -> bool {
        self.shares.is_full()
    }
}
