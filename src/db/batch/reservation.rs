//! The memory of the rows that batches read.
//!
//! A batch that reads documents reserves memory first, and waits while there is too little. It
//! stops reading at [`BATCH_BYTES`]. The rows stay reserved until the responses of their callers
//! are encoded; from then on the byte budget of the calls counts them.

use std::sync::Arc;

use diesel::QueryResult;
use futures_util::{Stream, TryStreamExt, pin_mut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{db::turns::Turn, domain::limits::MAX_RESPONSE, util::pace::Pace};

/// Size of rows from which a batch reads no further row, in bytes. Small rows never reach it.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The memory that a batch reserves, in bytes. Its last row may be as large as a response.
const RESERVED_BYTES: usize = BATCH_BYTES + MAX_RESPONSE;

/// The memory for all batches, in bytes: enough for each of the 18 workers that read documents.
const ALL_BYTES: usize = 144 * 1024 * 1024;

/// Collects rows. Leaves the remaining rows unread when they exceed [`BATCH_BYTES`]. Also returns
/// whether it has read all.
///
/// # Errors
/// The error of a row.
pub async fn read_up_to<R>(
    rows: impl Stream<Item = QueryResult<R>>,
    size: impl Fn(&R) -> usize,
) -> QueryResult<(Vec<R>, bool)> {
    pin_mut!(rows);
    let mut read = Vec::new();
    let mut bytes = 0;
    let mut pace = Pace::default();
    while let Some(row) = rows.try_next().await? {
        if bytes > BATCH_BYTES {
            return Ok((read, false));
        }
        bytes += size(&row);
        pace.pause_if_due().await;
        read.push(row);
    }
    Ok((read, true))
}

/// The memory for the rows of all batches.
#[derive(Clone)]
pub struct ReadMemory(Arc<Semaphore>);

impl Default for ReadMemory {
    fn default() -> Self {
        ReadMemory(Arc::new(Semaphore::new(ALL_BYTES)))
    }
}

impl ReadMemory {
    /// Reserves the memory of one batch, 8 MiB. Waits until there is as much. `None` would mean that
    /// the semaphore is closed, which nothing does.
    pub(super) async fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(RESERVED_BYTES).unwrap_or(u32::MAX);
        Arc::clone(&self.0).acquire_many_owned(bytes).await.ok()
    }

    /// Returns the memory that is reserved, in bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        ALL_BYTES.saturating_sub(self.0.available_permits())
    }
}

/// What a read holds until its response is encoded.
#[derive(Debug, Clone)]
pub enum Reservation {
    /// The memory of the rows that a batch has read. All of its callers hold it; the last one
    /// releases it.
    Batch(Arc<OwnedSemaphorePermit>),
    /// The turn of a query, which limits how many answers of queries are in memory.
    Query(Arc<Turn>),
}

impl Reservation {
    /// Keeps `bytes` of what was reserved for a batch, and releases the rest.
    pub(super) fn keep(mut permit: OwnedSemaphorePermit, bytes: usize) -> Self {
        drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        Reservation::Batch(Arc::new(permit))
    }
}

/// An answer, and what it holds.
#[derive(Debug)]
pub struct Held<A> {
    /// The answer.
    pub answer: A,
    /// What to hold until the response is encoded; `None` for operations that read no documents.
    pub reservation: Option<Reservation>,
}

impl<A> Held<A> {
    /// Converts the answer.
    pub fn map<B>(self, convert: impl FnOnce(A) -> B) -> Held<B> {
        Held {
            answer: convert(self.answer),
            reservation: self.reservation,
        }
    }
}
