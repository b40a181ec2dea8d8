//! Runs the items of a batch, and takes a batch that fails apart.
//!
//! A batch fails as a whole, because it is one statement or a few. It is halved until the item
//! at fault is alone, and only the caller of that item gets the error.

use futures_util::future::BoxFuture;

use super::Operation;
use crate::{
    db::{Database, DbError, planner::BatchTimeouts, retry::Retries},
    domain::error::{Error, Result},
    util::panics::contain,
};

/// How many parts of a batch may time out before it is halved no further. This
/// isolates three items of the largest batch. If a whole table is locked, all parts time out,
/// and their callers get the error after some seconds.
const MAX_TIMEOUTS: u32 = 32;

/// Runs items, with retries, and returns their answers in order. Stops early if `is_wanted`
/// says that all calls are cancelled.
pub(super) async fn run<O: Operation>(
    database: &Database,
    items: &[&O::Item],
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Vec<Result<O::Answer>> {
    let mut batch = Batch {
        database,
        is_wanted,
        timeouts: 0,
    };
    let whole = BatchTimeouts::Whole;
    batch.run::<O>(items, Retries::default(), whole).await
}

/// The state of a batch while its parts run.
struct Batch<'a> {
    database: &'a Database,
    is_wanted: &'a (dyn Fn() -> bool + Sync),
    /// The number of parts that timed out.
    timeouts: u32,
}

impl Batch<'_> {
    /// Runs a part. Halves it if it fails.
    fn run<'a, O: Operation>(
        &'a mut self,
        items: &'a [&'a O::Item],
        retries: Retries,
        timeouts: BatchTimeouts,
    ) -> BoxFuture<'a, Vec<Result<O::Answer>>> {
        Box::pin(async move {
            if items.is_empty() {
                return Vec::new();
            }
            let error = match self.run_whole::<O>(items, retries, timeouts).await {
                Ok(answers) => return answers,
                Err(error) => error,
            };
            if let [item] = items {
                return vec![Err(O::item_error(item, error))];
            }
            self.timeouts += u32::from(error.is_timeout());
            let is_unavailable = error.is_unavailable() && !error.is_timeout();
            let concerns_all = is_unavailable || matches!(error, DbError::Busy);
            if concerns_all || self.timeouts > MAX_TIMEOUTS || !(self.is_wanted)() {
                let error = Error::from(error);
                return items.iter().map(|_| Err(error.clone())).collect();
            }
            let (left, right) = items.split_at(items.len() / 2);
            let mut answers = self.run_half::<O>(left, &error, timeouts).await;
            answers.extend(self.run_half::<O>(right, &error, timeouts).await);
            answers
        })
    }

    /// Runs a half of a part that failed with `error`.
    async fn run_half<O: Operation>(
        &mut self,
        half: &[&O::Item],
        error: &DbError,
        timeouts: BatchTimeouts,
    ) -> Vec<Result<O::Answer>> {
        let timeouts = match (error, half) {
            // The item itself may take long.
            (error, [_]) if error.is_timeout() => BatchTimeouts::Item,
            _ if error.is_timeout() => BatchTimeouts::Part,
            _ => timeouts,
        };
        self.run::<O>(half, Retries::spent(), timeouts).await
    }

    /// Runs a part as one batch. Retries until it succeeds, retries are used up, or all calls
    /// are cancelled.
    async fn run_whole<O: Operation>(
        &self,
        items: &[&O::Item],
        mut retries: Retries,
        timeouts: BatchTimeouts,
    ) -> Result<Vec<Result<O::Answer>>, DbError> {
        let run = async |connection: &mut _| O::run(connection, items).await;
        loop {
            let leaves_rows = |answers: &Vec<_>| O::leaves_rows(answers);
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
