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
use futures_util::{Stream, future::BoxFuture};

use super::{
    Answers,
    reservation::{BATCH_BYTES, read_up_to},
    statement::index_of,
};
use crate::{
    db::{
        DbError,
        journal::{Positions, by_id},
    },
    domain::{
        error::{Error, Result},
        id::TransitionId,
        position::Position,
    },
};

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

    /// Returns whether the rows of the next item were read.
    fn next_is_read(&mut self) -> bool {
        true
    }

    /// Decides the next item, after those before it.
    ///
    /// # Errors
    /// The reason for which the change is refused.
    fn decide(&mut self, item: &'a Self::Item) -> Result<Self::Answer>;

    /// Writes the decisions, except for rows that changed since they were read.
    fn write(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = QueryResult<Written<Self::Key>>> + Send;

    /// Adds to an answer what only the write tells: the position of its row of the journal. The
    /// answer may be that of an earlier call, whose row has a position already.
    fn complete(answer: &mut Self::Answer, positions: &Positions);
}

/// What the write of a batch tells.
#[derive(Debug)]
pub struct Written<K> {
    /// The keys of rows that changed since they were read. Nothing was written for them.
    pub conflicts: HashSet<K>,
    /// The positions of the new rows of the journal.
    pub positions: Positions,
}

impl<K: Eq + Hash> Written<K> {
    /// Compares the planned rows of the journal, each with the key of its row, with those that the
    /// statement wrote. A statement writes all of a key, or none.
    pub fn of(
        planned: impl Iterator<Item = (TransitionId, K)>,
        written: impl IntoIterator<Item = Position>,
    ) -> Self {
        let positions = by_id(written);
        let others = planned.filter(|(id, _)| !positions.contains_key(id));
        let conflicts = others.map(|(_, key)| key).collect();
        Written {
            conflicts,
            positions,
        }
    }
}

impl<K> Default for Written<K> {
    fn default() -> Self {
        Written {
            conflicts: HashSet::new(),
            positions: Positions::new(),
        }
    }
}

/// The first items of a batch: those whose rows were read, and whose answers fit into
/// [`BATCH_BYTES`] together.
#[derive(Debug, Default)]
pub struct FirstItems {
    /// How many of the next items have their rows; `None` for all.
    left: Option<usize>,
    /// The size of the answers so far.
    bytes: usize,
}

impl FirstItems {
    /// Collects rows, one for each item. Leaves the remaining rows unread when they exceed
    /// [`BATCH_BYTES`]. The connection receives and drops them before the response of the write that
    /// follows. That takes time, but no memory, and only once: the next batch is as small as it was
    /// read.
    ///
    /// # Errors
    /// The error of a row.
    pub async fn collect<R>(
        rows: impl Stream<Item = QueryResult<R>>,
        ordinality: impl Fn(&R) -> i64,
        size: impl Fn(&R) -> usize,
    ) -> QueryResult<(Vec<R>, Self)> {
        let (rows, is_complete) = read_up_to(rows, size).await?;
        let mut left = 0;
        for row in &rows {
            left += usize::from(index_of(ordinality(row)) == left);
        }
        let left = (!is_complete).then_some(left);
        Ok((rows, FirstItems { left, bytes: 0 }))
    }

    /// Takes the next item. Returns whether it is one of the first.
    pub fn take(&mut self) -> bool {
        let is_first = self.left != Some(0) && self.bytes <= BATCH_BYTES;
        self.left = self.left.map(|left| left.saturating_sub(1));
        is_first
    }

    /// Counts the size of an answer, in bytes.
    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

/// Why an attempt wrote nothing for an item.
#[derive(Debug, Clone, Copy)]
pub enum Undecided {
    /// The row of the item changed between read and write.
    Conflict,
    /// The batch stopped before it read what the item needs.
    Unread,
}

/// The outcome of each item of one attempt, in order.
pub type Outcomes<A> = Vec<Result<Result<A>, Undecided>>;

/// Tries each item once.
pub type Attempt<'a, T, A> = for<'c> fn(
    &'c mut AsyncPgConnection,
    &'c [&'a T],
) -> BoxFuture<'c, Result<Outcomes<A>, DbError>>;

/// Reads, decides and writes items until none has a conflict. Returns the answers in order.
pub fn run_optimistic<'a, W: OptimisticWrite<'a> + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a W::Item],
) -> BoxFuture<'a, Result<Answers<W::Answer>, DbError>> {
    retry_conflicts(connection, items, |connection, items| {
        Box::pin(attempt::<W>(connection, items))
    })
}

async fn attempt<'a, W: OptimisticWrite<'a>>(
    connection: &mut AsyncPgConnection,
    items: &[&'a W::Item],
) -> Result<Outcomes<W::Answer>, DbError> {
    let mut batch = W::read(connection, items).await?;
    let answers = items
        .iter()
        .map(|item| batch.next_is_read().then(|| batch.decide(item)));
    let answers: Vec<_> = answers.collect();
    let written = batch.write(connection).await?;
    let answers = items.iter().zip(answers);
    let outcomes = answers.map(|(item, answer)| match answer {
        None => Err(Undecided::Unread),
        Some(_) if written.conflicts.contains(&W::key(item)) => Err(Undecided::Conflict),
        Some(mut answer) => {
            if let Ok(answer) = &mut answer {
                W::complete(answer, &written.positions);
            }
            Ok(answer)
        }
    });
    Ok(outcomes.collect())
}

/// Repeats `attempt` for items with a write conflict until none is left. Returns the
/// answers in order.
pub fn retry_conflicts<'a, T: Sync, A: Send + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a T],
    attempt: Attempt<'a, T, A>,
) -> BoxFuture<'a, Result<Answers<A>, DbError>> {
    Box::pin(async move {
        let contended = items.iter().map(|_| Some(Err(Error::Contended)));
        let mut answers: Answers<A> = contended.collect();
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..MAX_ATTEMPTS {
            let batch = open.iter().filter_map(|index| items.get(*index).copied());
            let batch: Vec<&'a T> = batch.collect();
            let outcomes = attempt(connection, &batch).await?;
            let mut conflicts = Vec::new();
            for (index, outcome) in open.into_iter().zip(outcomes) {
                match (outcome, answers.get_mut(index)) {
                    (Ok(answer), Some(slot)) => *slot = Some(answer),
                    (Err(Undecided::Unread), Some(slot)) => *slot = None,
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
