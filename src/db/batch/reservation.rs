//! The memory of the rows that batches read.
//!
//! A batch reserves its memory before it reads, and waits while there is none. It stops reading
//! at [`BATCH_BYTES`]. What it has read stays reserved until the responses of its callers are
//! encoded; from then on the byte budget of the calls counts them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::limits::MAX_RESPONSE;

/// Size of rows from which a batch reads no further row, in bytes. Small rows never reach it.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The size of what a batch reads at most, in bytes: its last row may be as large as a response.
const RESERVED_BYTES: usize = BATCH_BYTES + MAX_RESPONSE;

/// The size of what all batches together read at most, in bytes.
const ALL_BYTES: usize = 128 * 1024 * 1024;

/// The memory for the rows of all batches.
#[derive(Clone)]
pub struct ReadMemory(Arc<Semaphore>);

impl Default for ReadMemory {
    fn default() -> Self {
        ReadMemory(Arc::new(Semaphore::new(ALL_BYTES)))
    }
}

impl ReadMemory {
    /// Reserves what one batch may read. Waits until there is as much. Returns `None` only when the
    /// process ends.
    pub(super) async fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(RESERVED_BYTES).unwrap_or(u32::MAX);
        Arc::clone(&self.0).acquire_many_owned(bytes).await.ok()
    }
}

/// The memory of what a batch has read. All of its callers hold it; the last one releases it.
#[derive(Debug, Clone)]
pub struct Reservation {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Keeps `bytes` of what was reserved for a batch, and releases the rest.
    pub(super) fn keep(mut permit: OwnedSemaphorePermit, bytes: usize) -> Self {
        drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        Reservation {
            _permit: Arc::new(permit),
        }
    }
}

/// An answer, and the memory of the batch that read it.
#[derive(Debug)]
pub struct Held<A> {
    /// The answer.
    pub answer: A,
    /// What to hold until the response is encoded; `None` if the batch read no documents.
    pub reservation: Option<Reservation>,
}
