//! What a call takes, from its first byte until its answer has been taken.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::error::{Error, Result},
    rpc::transport::peer::OpenCall,
};

/// The bytes of all calls that are under way.
pub(super) struct ByteBudget {
    used: AtomicUsize,
    most: usize,
}

impl ByteBudget {
    /// None so far, and so many at most.
    pub(super) fn new(most: Option<usize>) -> Self {
        ByteBudget {
            used: AtomicUsize::new(0),
            most: most.unwrap_or(usize::MAX),
        }
    }

    fn take(&self, bytes: usize) -> usize {
        self.used.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

/// What a call takes. It is given back when this is dropped.
pub(super) struct Permit {
    bytes: AtomicUsize,
    memory: Arc<ByteBudget>,
    /// The places of calls at work, and this one's, if those are limited for it.
    slots: Option<Arc<Semaphore>>,
    slot: OnceLock<OwnedSemaphorePermit>,
    /// The slot of an answer without end.
    _stream: Option<OwnedSemaphorePermit>,
    call: OpenCall,
}

impl Permit {
    /// Nothing so far.
    pub(super) fn new(
        memory: Arc<ByteBudget>,
        slots: Option<Arc<Semaphore>>,
        stream: Option<OwnedSemaphorePermit>,
        call: OpenCall,
    ) -> Self {
        Permit {
            bytes: AtomicUsize::new(0),
            memory,
            slots,
            slot: OnceLock::new(),
            _stream: stream,
            call,
        }
    }

    /// Notes that so many more bytes of the request have come.
    pub(super) fn receive(&self, bytes: usize) -> Result<()> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        match self.memory.take(bytes) <= self.memory.most {
            true => Ok(()),
            false => Err(Error::Overloaded),
        }
    }

    /// Notes that all of the request has come, so that there is work to do.
    pub(super) fn begin_work(&self) -> Result<()> {
        let Some(slots) = self.slots.as_ref().filter(|_| self.slot.get().is_none()) else {
            return Ok(());
        };
        let slot = Arc::clone(slots).try_acquire_owned();
        let _ = self.slot.set(slot.map_err(|_| Error::Overloaded)?);
        Ok(())
    }

    /// Notes that so many bytes of an answer are there. The work is done: it is not
    /// thrown away, but who comes next may be turned away for it.
    pub(super) fn answer(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.memory.take(bytes);
    }

    /// Notes that the other end takes the answer.
    pub(super) fn progress(&self) {
        self.call.progress();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
