//! The permit of a call: the resources that it holds from its first byte until the client
//! has read its answer.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::error::{Error, Result},
    rpc::transport::peer::OpenCall,
};

/// The bytes of all calls in progress.
pub(super) struct ByteBudget {
    used: AtomicUsize,
    limit: usize,
}

impl ByteBudget {
    /// Makes an unused budget; `None` for no limit.
    pub(super) fn new(limit: Option<usize>) -> Self {
        ByteBudget {
            used: AtomicUsize::new(0),
            limit: limit.unwrap_or(usize::MAX),
        }
    }

    /// Adds bytes, even beyond the limit. Returns whether the budget is kept.
    fn add(&self, bytes: usize) -> bool {
        self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The resources of a call. They are released when it is dropped.
pub(super) struct Permit {
    bytes: AtomicUsize,
    budget: Arc<ByteBudget>,
    /// The slots of calls in progress, if the number of such calls is limited.
    slots: Option<Arc<Semaphore>>,
    /// This call's slot, once its request is complete.
    slot: OnceLock<OwnedSemaphorePermit>,
    /// The slot of a health watch or a reflection stream.
    _stream: Option<OwnedSemaphorePermit>,
    call: OpenCall,
}

impl Permit {
    /// Makes a permit that holds no bytes and no slot yet.
    pub(super) fn new(
        budget: Arc<ByteBudget>,
        slots: Option<Arc<Semaphore>>,
        stream: Option<OwnedSemaphorePermit>,
        call: OpenCall,
    ) -> Self {
        Permit {
            bytes: AtomicUsize::new(0),
            budget,
            slots,
            slot: OnceLock::new(),
            _stream: stream,
            call,
        }
    }

    /// Counts received bytes of the request. Fails if the byte budget is exceeded.
    pub(super) fn receive(&self, bytes: usize) -> Result<()> {
        match self.hold(bytes) {
            true => Ok(()),
            false => Err(Error::Overloaded),
        }
    }

    /// Takes a slot, because the request is complete and its work begins. Fails if no slot
    /// is free.
    pub(super) fn begin_work(&self) -> Result<()> {
        let Some(slots) = self.slots.as_ref().filter(|_| self.slot.get().is_none()) else {
            return Ok(());
        };
        let slot = Arc::clone(slots).try_acquire_owned();
        let _ = self.slot.set(slot.map_err(|_| Error::Overloaded)?);
        Ok(())
    }

    /// Counts bytes of the answer. They may exceed the byte budget, because the work is
    /// done; later requests are rejected instead.
    pub(super) fn answer(&self, bytes: usize) {
        self.hold(bytes);
    }

    /// Notes that the answer is ready, or that the client has read a part of it.
    pub(super) fn progress(&self) {
        self.call.progress();
    }

    fn hold(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.add(bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.release(self.bytes.load(Ordering::Relaxed));
    }
}
