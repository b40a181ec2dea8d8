//! Deletes by key, each with a last row of the journal.

use std::{collections::HashSet, hash::Hash, marker::PhantomData};

use diesel::{
    QueryResult,
    sql_types::{Array, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{
    Answers, Operation,
    rounds::{Indexed, in_order, rounds},
    statement::{column, statement},
};
use crate::{
    db::DbError,
    domain::{
        error::{Error, Result},
        id::TransitionId,
        namespace::Scoped,
    },
};

/// A kind of row that callers delete by its key.
pub trait Delete: Send + Sync + 'static {
    /// The name of the operation in metrics and traces.
    const NAME: &'static str;
    /// The request to delete a row.
    type Request: Send + Sync + 'static;
    /// The key of a row, in the order in which all statements lock rows of this kind.
    type Key<'a>: Ord + Hash;

    /// Returns the key of the row to delete.
    fn key(request: &Self::Request) -> Self::Key<'_>;
    /// Returns the id of the last row of the journal, which the service makes for the call.
    fn transition_id(request: &Self::Request) -> TransitionId;
    /// Returns the namespace of that row of the journal.
    fn journal(request: &Scoped<Self::Request>) -> &str {
        request.namespace.as_str()
    }
    /// Returns the error for a row that does not exist; `None` if it may be missing.
    fn not_found(request: &Scoped<Self::Request>) -> Option<Error>;

    /// Deletes rows, and returns the ids of their last rows of the journal.
    fn delete(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<Self::Request>>],
    ) -> impl Future<Output = QueryResult<Vec<TransitionId>>> + Send;
}

/// The operation that deletes rows of a kind. Its answer is whether the row existed.
pub struct DeleteOperation<D>(PhantomData<D>);

impl<D: Delete> Operation for DeleteOperation<D> {
    const NAME: &'static str = D::NAME;

    type Item = Scoped<D::Request>;
    type Answer = bool;
    type Key = u64;

    fn key(item: &Self::Item) -> u64 {
        super::hash(&D::key(item))
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(item: &Self::Item) -> Option<&str> {
        Some(D::journal(item))
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for mut round in rounds(items, |item| [super::hash(&D::key(item))]) {
                round.sort_unstable_by(|(_, a), (_, b)| D::key(a).cmp(&D::key(b)));
                let deleted = D::delete(connection, &round).await?;
                let mut deleted: HashSet<_> = deleted.into_iter().collect();
                if deleted.len() < round.len() {
                    let ids = column(&round, |item| D::transition_id(item));
                    let earlier: Vec<TransitionId> = FindDeletions { ids }.load(connection).await?;
                    deleted.extend(earlier);
                }
                let round = round.into_iter();
                answers
                    .extend(round.map(|(index, item)| (index, Some(answer::<D>(item, &deleted)))));
            }
            Ok(in_order(answers))
        })
    }
}

statement! {
    /// Finds the deletions that an earlier try of the same calls made before it lost its
    /// connection. The service makes the ids, so they belong to no other tenant.
    struct FindDeletions { ids: Vec<TransitionId>, }
    returns Uuid, is_batch: true;
    "SELECT id FROM fsm_transitions WHERE id = ANY (" {ids: Array<Uuid>} ")"
}

fn answer<D: Delete>(
    request: &Scoped<D::Request>,
    deleted: &HashSet<TransitionId>,
) -> Result<bool> {
    match (
        deleted.contains(&D::transition_id(request)),
        D::not_found(request),
    ) {
        (false, Some(error)) => Err(error),
        (is_deleted, _) => Ok(is_deleted),
    }
}
