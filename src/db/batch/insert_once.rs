//! Idempotent appends: a row with a given id and content is inserted once.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use super::{
    Answers, Operation,
    optimistic::{Outcomes, Undecided, retry_conflicts},
    rounds::{Indexed, in_order, rounds},
};
use crate::db::DbError;
use crate::domain::{
    error::{Error, Result},
    namespace::Scoped,
    write_outcome::{WriteOutcome, resolve_duplicate},
};

/// Why a row was not inserted: its id, whether its parent row exists, whether the id is
/// taken (by any tenant), and the row with that id if the same request stored it.
///
/// A row that another request stored is never read, so the work for a taken id does not
/// depend on which tenant took it.
pub type NotInserted<I, R> = (I, bool, bool, Option<R>);

/// Joins each item with the row that has its id: `taken` is that row, of any tenant, and
/// `$alias` is the same row if the same request of the same tenant stored it.
///
/// Ids are unique across tenants, so the lookup ignores the namespace. Statements may select
/// only the id of `taken`, see [`NotInserted`]. One snapshot shows a change of state and its
/// row of the journal, or neither.
macro_rules! taken {
    ($table:literal, $alias:literal) => {
        concat!(
            $crate::db::planner::left_lookup!($table, "taken", "taken.id = item.id"),
            $crate::db::planner::left_lateral!(
                $alias,
                "SELECT taken.* WHERE taken.namespace = item.namespace
                    AND taken.request_digest = item.request_digest"
            )
        )
    };
}

pub(crate) use taken;

/// A kind of row that is appended, and never updated.
pub trait InsertOnce: Send + Sync + 'static {
    /// The name of the operation in metrics and traces.
    const NAME: &'static str;
    /// A row to append.
    type New: Send + Sync + 'static;
    /// The row as it is stored.
    type Row: Send + Sync + 'static;
    /// Identifies a row.
    type Id: Copy + Eq + Hash + Send + Sync;
    /// Rows with equal keys are appended in their order.
    type Key: Hash;
    /// The foreign key constraint to the parent row.
    const PARENT_KEY: &str;

    /// Returns the key of a row.
    fn key(new: &Self::New) -> Self::Key;
    /// Returns the id of a row, and whether the caller chose it.
    fn identity(new: &Self::New) -> (Self::Id, bool);
    /// Returns the size of the documents of a row, in bytes.
    fn document_bytes(new: &Self::New) -> usize;
    /// Returns the stored form of a row that was inserted.
    fn stored(new: &Scoped<Self::New>, created_at: DateTime<Utc>) -> Self::Row;
    /// Returns the error for an id that is taken.
    fn id_conflict(new: &Self::New) -> Error;
    /// Returns the error for a row whose parent does not exist.
    fn parent_not_found(new: &Scoped<Self::New>) -> Error;

    /// Inserts the rows whose id is free and whose parent exists, and returns their ids.
    fn insert(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<Self::New>>],
    ) -> impl Future<Output = QueryResult<Vec<(Self::Id, DateTime<Utc>)>>> + Send;

    /// Finds out why rows were not inserted.
    fn find(
        connection: &mut AsyncPgConnection,
        others: &[Indexed<'_, Scoped<Self::New>>],
    ) -> impl Future<Output = QueryResult<Vec<NotInserted<Self::Id, Self::Row>>>> + Send;
}

/// The operation that appends rows of a kind.
pub struct InsertOnceOperation<I>(PhantomData<I>);

impl<I: InsertOnce> Operation for InsertOnceOperation<I> {
    const NAME: &'static str = I::NAME;

    type Item = Scoped<I::New>;
    type Answer = WriteOutcome<I::Row>;
    type Key = I::Key;

    fn key(item: &Self::Item) -> I::Key {
        I::key(item)
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn document_bytes(item: &Self::Item) -> usize {
        I::document_bytes(item)
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for round in rounds(items, |item| [I::identity(item).0]) {
                let (positions, round): (Vec<_>, Vec<_>) = round.into_iter().unzip();
                let round = retry_conflicts(connection, &round, |connection, items| {
                    Box::pin(attempt::<I>(connection, items))
                });
                answers.extend(positions.into_iter().zip(round.await?));
            }
            Ok(in_order(answers))
        })
    }

    /// A violated foreign key means that the parent was deleted after the statement saw it.
    fn item_error(item: &Self::Item, error: DbError) -> Error {
        match error.constraint() {
            Some(constraint) if constraint == I::PARENT_KEY => I::parent_not_found(item),
            _ => error.into(),
        }
    }
}

/// Inserts what it can, and finds out why it could not insert the rest. A row whose parent
/// appeared, or whose id became free, between the two statements is a write conflict.
async fn attempt<I: InsertOnce>(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<I::New>],
) -> Result<Outcomes<WriteOutcome<I::Row>>, DbError> {
    let batch: Vec<Indexed<_>> = items.iter().copied().enumerate().collect();
    let inserted = I::insert(connection, &batch).await?;
    let inserted: HashMap<_, _> = inserted.into_iter().collect();
    let is_open = |(_, new): &Indexed<Scoped<I::New>>| !inserted.contains_key(&I::identity(new).0);
    let others: Vec<Indexed<_>> = batch.into_iter().filter(is_open).collect();
    let found = match others.is_empty() {
        true => Vec::new(),
        false => I::find(connection, &others).await?,
    };
    let found = found.into_iter();
    let found = found.map(|(id, has_parent, is_taken, same)| (id, (has_parent, is_taken, same)));
    let mut found: HashMap<_, _> = found.collect();
    let outcomes = items.iter().map(|new| {
        let (id, is_id_chosen) = I::identity(new);
        if let Some(created_at) = inserted.get(&id) {
            let row = I::stored(new, *created_at);
            return Ok(Ok(WriteOutcome { row, created: true }));
        }
        match found.remove(&id) {
            Some((true, false, _)) => Err(Undecided::Conflict),
            Some((true, true, same)) => Ok(resolve_duplicate(same, is_id_chosen, || {
                I::id_conflict(new)
            })),
            _ => Ok(Err(I::parent_not_found(new))),
        }
    });
    Ok(outcomes.collect())
}
