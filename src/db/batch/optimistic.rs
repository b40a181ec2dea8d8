//! Optimistic concurrency for batches whose outcome is decided in Rust.
//!
//! A batch reads its rows and applies the rules of a slice's `model`. One statement then
//! writes, and skips every row that changed since the read. This keeps the rules in one
//! place, applies several changes of one row in their order, and holds no lock while the
//! rules run. Within a process an operation never changes the same row in two
//! batches at once. Where another operation or another replica does, the items of that
//! row are read and decided again.

use std::{collections::HashSet, hash::Hash};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::{Stream, TryStreamExt, future::BoxFuture, pin_mut};

use super::{reservation::BATCH_BYTES, statement::index_of};
use crate::db::DbError;
use crate::domain::error::{Error, Result};

/// How many times an item is decided before it fails with [`Error::Contended`]. Each
/// conflict means that another writer made progress, so this is far above real contention.
const MAX_ATTEMPTS: usize = 50;

/// The state of one optimistic batch: what it read, and what it is going to write.
pub trait OptimisticWrite<'a>: Sized + Send + Sync {
    /// A requested change.
    type Item: Sync + 'a;
    /// The answer to a change.
    type Answer: Send;
    /// Identifies a row that items change.
    type Key: Eq + Hash + Send;

    /// Returns the key of the row that an item changes.
    fn key(item: &'a Self::Item) -> Self::Key;

    /// Reads the rows that the decisions depend on.
    fn read(
        connection: &mut AsyncPgConnection,
        items: &[&'a Self::Item],
    ) -> impl Future<Output = QueryResult<Self>> + Send;

    /// Decides one item, after those before it.
    ///
    /// # Errors
    /// The reason for which the change is refused.
    fn decide(&mut self, item: &'a Self::Item) -> Result<Self::Answer>;

    /// Writes the decisions, except for rows that changed since they were read. Returns
    /// the keys of those rows.
    fn write(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = QueryResult<HashSet<Self::Key>>> + Send;
}

/// How many items of a batch have their rows, counted down while they are decided. A batch whose
/// rows exceed [`BATCH_BYTES`] reads those of its first items only.
#[derive(Debug, Default)]
pub struct FirstItems(Option<usize>);

impl FirstItems {
    /// Collects rows, one for each item, which begin with their `ordinality`. Leaves the remaining
    /// rows unread when they exceed [`BATCH_BYTES`].
    ///
    /// # Errors
    /// The error of a row.
    pub async fn collect<R>(
        rows: impl Stream<Item = QueryResult<R>>,
        ordinality: impl Fn(&R) -> i64,
        size: impl Fn(&R) -> usize,
    ) -> QueryResult<(Vec<R>, Self)> {
        pin_mut!(rows);
        let (mut read, mut first, mut bytes) = (Vec::new(), 0, 0);
        while let Some(row) = rows.try_next().await? {
            if bytes > BATCH_BYTES {
                return Ok((read, FirstItems(Some(first))));
            }
            bytes += size(&row);
            first += usize::from(index_of(ordinality(&row)) == first);
            read.push(row);
        }
        Ok((read, FirstItems(None)))
    }

    /// Takes the next item. Returns whether it has its row.
    pub fn take(&mut self) -> bool {
        match &mut self.0 {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// The row of an item changed between read and write, so nothing was written for it.
#[derive(Debug, Clone, Copy)]
pub struct WriteConflict;

/// The outcome of each item of one attempt, in order.
pub type Outcomes<A> = Vec<Result<Result<A>, WriteConflict>>;

/// Tries each item once.
pub type Attempt<'a, T, A> = for<'c> fn(
    &'c mut AsyncPgConnection,
    &'c [&'a T],
) -> BoxFuture<'c, Result<Outcomes<A>, DbError>>;

/// Reads, decides and writes items until none has a conflict. Returns the answers in order.
pub fn run_optimistic<'a, W: OptimisticWrite<'a> + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a W::Item],
) -> BoxFuture<'a, Result<Vec<Result<W::Answer>>, DbError>> {
    retry_conflicts(connection, items, |connection, items| {
        Box::pin(attempt::<W>(connection, items))
    })
}

async fn attempt<'a, W: OptimisticWrite<'a>>(
    connection: &mut AsyncPgConnection,
    items: &[&'a W::Item],
) -> Result<Outcomes<W::Answer>, DbError> {
    let mut batch = W::read(connection, items).await?;
    let answers: Vec<_> = items.iter().map(|item| batch.decide(item)).collect();
    let conflicts = batch.write(connection).await?;
    let answers = items.iter().zip(answers);
    let outcomes = answers.map(|(item, answer)| match conflicts.contains(&W::key(item)) {
        true => Err(WriteConflict),
        false => Ok(answer),
    });
    Ok(outcomes.collect())
}

/// Repeats `attempt` for items with a write conflict until none is left. Returns the
/// answers in order.
pub fn retry_conflicts<'a, T: Sync, A: Send + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a T],
    attempt: Attempt<'a, T, A>,
) -> BoxFuture<'a, Result<Vec<Result<A>>, DbError>> {
    Box::pin(async move {
        let mut answers: Vec<Result<A>> = items.iter().map(|_| Err(Error::Contended)).collect();
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..MAX_ATTEMPTS {
            let batch = open.iter().filter_map(|index| items.get(*index).copied());
            let batch: Vec<&'a T> = batch.collect();
            let outcomes = attempt(connection, &batch).await?;
            let mut conflicts = Vec::new();
            for (index, outcome) in open.into_iter().zip(outcomes) {
                match (outcome, answers.get_mut(index)) {
                    (Ok(answer), Some(slot)) => *slot = answer,
                    _ => conflicts.push(index),
                }
            }
            open = conflicts;
            if open.is_empty() {
                break;
            }
        }
        Ok(answers)
    })
}
