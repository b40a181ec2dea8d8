//! Runs the items of a batch, and splits a batch that fails.
//!
//! A batch fails as a whole, because it is one statement or a few. It is halved until the item
//! at fault is alone, and only the caller of that item gets the error.

use futures_util::future::BoxFuture;

use super::{Answers, Operation, reservation::BATCH_BYTES};
use crate::{
    db::{Database, DbError, planner::BatchTimeouts, retry::Retries},
    domain::error::{Error, Result},
    util::panics::contain,
};

/// How many parts of a batch may time out before it is halved no further. This
/// isolates three items of the largest batch. If a whole table is locked, all parts time out,
/// and their callers get the error after some seconds.
const MAX_TIMED_OUT_PARTS: u32 = 32;

/// Returns whether an error concerns all items of a batch, so that none of its parts would
/// succeed.
pub(super) fn concerns_all(error: &DbError) -> bool {
    let is_unavailable = error.is_unavailable() && !error.is_timeout();
    is_unavailable || matches!(error, DbError::Busy)
}

/// Returns the timeouts of a part of a batch that failed with `error`.
pub(super) fn timeouts_after(error: &DbError, timeouts: BatchTimeouts) -> BatchTimeouts {
    match error.is_timeout() {
        true => BatchTimeouts::Part,
        false => timeouts,
    }
}

/// The state of a batch while its parts run.
pub(super) struct Batch<'a> {
    database: &'a Database,
    /// Whether a caller still waits.
    is_wanted: &'a (dyn Fn() -> bool + Sync),
    /// The number of parts that timed out.
    timeouts: u32,
    /// The size of the documents in the answers of all parts, in bytes.
    bytes_read: usize,
}

impl<'a> Batch<'a> {
    /// Makes the state of a batch. It stops early if `is_wanted` says that all calls are
    /// cancelled.
    pub(super) fn new(database: &'a Database, is_wanted: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Batch {
            database,
            is_wanted,
            timeouts: 0,
            bytes_read: 0,
        }
    }

    /// Halves items that failed together with `error`, and returns their answers in order. A single
    /// item that timed out as a part runs again, as long as an item may take.
    pub(super) fn split<'i, O: Operation>(
        &'i mut self,
        items: &'i [&'i O::Item],
        error: DbError,
        timeouts: BatchTimeouts,
    ) -> BoxFuture<'i, Answers<O::Answer>>
    where
        'a: 'i,
    {
        Box::pin(async move {
            if let [item] = items {
                let is_final = !error.is_timeout() || timeouts != BatchTimeouts::Part;
                return match is_final {
                    true => vec![Some(Err(O::item_error(item, error)))],
                    false => self.run_half::<O>(items, &error, timeouts).await,
                };
            }
            self.timeouts += u32::from(error.is_timeout());
            if concerns_all(&error) || self.timeouts > MAX_TIMED_OUT_PARTS || !(self.is_wanted)() {
                let error = Error::from(error);
                return items.iter().map(|_| Some(Err(error.clone()))).collect();
            }
            let (left, right) = items.split_at(items.len() / 2);
            let mut answers = self.run_half::<O>(left, &error, timeouts).await;
            // An item must not run before an earlier one with its key, which may be unread.
            match answers.iter().all(Option::is_some) {
                true => answers.extend(self.run_half::<O>(right, &error, timeouts).await),
                false => answers.extend(right.iter().map(|_| None)),
            }
            answers
        })
    }

    /// Runs a half of a part that failed with `error`.
    async fn run_half<O: Operation>(
        &mut self,
        half: &[&O::Item],
        error: &DbError,
        timeouts: BatchTimeouts,
    ) -> Answers<O::Answer> {
        if self.bytes_read > BATCH_BYTES {
            return half.iter().map(|_| None).collect();
        }
        let timeouts = match half {
            // The item itself may take long.
            [_] if error.is_timeout() => BatchTimeouts::Item,
            _ => timeouts_after(error, timeouts),
        };
        match self.attempt::<O>(half, Retries::spent(), timeouts).await {
            Ok(answers) => {
                let read = answers.iter().flatten().flatten();
                self.bytes_read += read.map(O::bytes_read).sum::<usize>();
                answers
            }
            Err(error) => self.split::<O>(half, error, timeouts).await,
        }
    }

    /// Runs items as one batch. Retries until it succeeds, retries are used up, or all calls
    /// are cancelled.
    pub(super) async fn attempt<O: Operation>(
        &self,
        items: &[&O::Item],
        mut retries: Retries,
        timeouts: BatchTimeouts,
    ) -> Result<Answers<O::Answer>, DbError> {
        let run = async |connection: &mut _| O::run(connection, items).await;
        loop {
            let leaves_rows = |answers: &Vec<_>| answers.iter().any(Option::is_none);
            let attempt = self.database.try_batch(timeouts, run, leaves_rows);
            let panics = self.database.metrics().panics();
            let error = match contain(O::NAME, panics, attempt).await {
                Some(Ok(answers)) => return Ok(answers),
                Some(Err(error)) => error,
                // The item that causes it is found as any other item at fault.
                None => DbError::Panicked,
            };
            // Its halves take less time. A single item runs again, in case its connection was dead.
            if items.len() > 1 && error.is_timeout() {
                return Err(error);
            }
            match retries.pause_after(&error) {
                Some(pause) if (self.is_wanted)() => self.database.pause(&error, pause).await,
                _ => return Err(error),
            }
        }
    }
}
