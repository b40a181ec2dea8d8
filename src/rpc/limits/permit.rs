//! The permit of a call: the resources that it holds from its first byte until the client
//! has read its answer.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::futures::TaskLocalFuture,
};

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

tokio::task_local! {
    static CURRENT: Arc<Permit>;
}

/// Reserves the bytes of the current call's response, before it is encoded. Does nothing
/// outside of a call.
///
/// # Errors
/// [`Error::Overloaded`] if the byte budget is exhausted and the call only reads. The limit
/// layer then answers the call with this error and drops the response.
pub fn reserve_response(bytes: usize) -> Result<()> {
    let reserved = CURRENT.try_with(|permit| permit.reserve(bytes));
    reserved.unwrap_or(Ok(()))
}

/// The resources of a call. They are released when it is dropped.
pub(super) struct Permit {
    bytes: AtomicUsize,
    /// The bytes among them that are reserved for the response.
    reserved: AtomicUsize,
    /// Whether the call only reads, so that it can be rejected after its work.
    is_read: bool,
    is_rejected: AtomicBool,
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
        is_read: bool,
        call: OpenCall,
    ) -> Self {
        Permit {
            bytes: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            is_read,
            is_rejected: AtomicBool::new(false),
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

    /// Makes this the permit of the call that `work` is a part of.
    pub(super) fn scope<F: Future>(self: &Arc<Self>, work: F) -> TaskLocalFuture<Arc<Self>, F> {
        CURRENT.scope(Arc::clone(self), work)
    }

    /// Reserves bytes of the answer. Those of a write may exceed the byte budget, because its
    /// work is done; later requests are rejected instead.
    fn reserve(&self, bytes: usize) -> Result<()> {
        let is_kept = self.budget.add(bytes);
        if self.is_read && !is_kept {
            self.budget.release(bytes);
            self.is_rejected.store(true, Ordering::Relaxed);
            return Err(Error::Overloaded);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether the answer was not encoded, because the byte budget is exhausted.
    pub(super) fn is_rejected(&self) -> bool {
        self.is_rejected.load(Ordering::Relaxed)
    }

    /// Counts bytes of the answer, in place of those that are reserved.
    pub(super) fn answer(&self, bytes: usize) {
        self.hold(bytes);
        let reserved = self.reserved.swap(0, Ordering::Relaxed);
        self.bytes.fetch_sub(reserved, Ordering::Relaxed);
        self.budget.release(reserved);
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
