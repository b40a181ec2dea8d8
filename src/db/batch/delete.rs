//! Deletes by key, each with a last row of the journal.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use diesel::{
    QueryResult,
    sql_types::{BigInt, Bool, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{
    Answers, Operation,
    rounds::{Indexed, in_order, rounds},
    statement::{batch_statement, column, index_of},
};
use crate::{
    db::{
        DbError,
        journal::{PositionSql, Positions, by_id, left_last_transition},
        planner::left_lookup,
    },
    domain::{
        error::{Error, Result},
        id::TransitionId,
        namespace::Scoped,
        position::Position,
        write_outcome::Deleted,
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
    /// The `entity_type` of rows of this kind in the journal, and the state of deleted ones.
    const JOURNAL: (&'static str, &'static str);

    /// Returns the key of the row to delete.
    fn key(request: &Self::Request) -> Self::Key<'_>;
    /// Returns the id of the last row of the journal, which the service makes for the call.
    fn transition_id(request: &Self::Request) -> TransitionId;
    /// Returns the namespace and the id that the row has in the journal.
    fn entity(request: &Scoped<Self::Request>) -> (&str, uuid::Uuid);
    /// Returns the error for a row that does not exist; `None` if it may be missing.
    fn not_found(request: &Scoped<Self::Request>) -> Option<Error>;

    /// Deletes rows, and returns the positions of their last rows of the journal.
    fn delete(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<Self::Request>>],
    ) -> impl Future<Output = QueryResult<Vec<Position>>> + Send;
}

/// The operation that deletes rows of a kind.
pub struct DeleteOperation<D>(PhantomData<D>);

impl<D: Delete> Operation for DeleteOperation<D> {
    const NAME: &'static str = D::NAME;

    type Item = Scoped<D::Request>;
    type Answer = Deleted;
    type Key = u64;

    fn key(item: &Self::Item) -> u64 {
        super::hash(&D::key(item))
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(item: &Self::Item) -> Option<&str> {
        Some(D::entity(item).0)
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for mut round in rounds(items, |item| [super::hash(&D::key(item))]) {
                round.sort_unstable_by(|(_, a), (_, b)| D::key(a).cmp(&D::key(b)));
                let deleted = by_id(D::delete(connection, &round).await?);
                let earlier = match deleted.len() < round.len() {
                    true => find::<D>(connection, &round).await?,
                    false => HashMap::new(),
                };
                answers.extend(round.into_iter().map(|(index, item)| {
                    let earlier = earlier.get(&D::transition_id(item)).copied();
                    (index, Some(answer::<D>(item, &deleted, earlier)))
                }));
            }
            Ok(in_order(answers))
        })
    }
}

batch_statement! {
    /// Finds the deletions that an earlier try of the same calls made before it lost its
    /// connection; the service makes the ids, so they belong to no other tenant. Otherwise finds the
    /// last row of the journal of each entity, if it records a deletion. Returns whether it is that
    /// of the same call.
    struct FindDeletions<'a> {
        id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        to_state: &'a str => Text,
    }
    returns (BigInt, Bool, PositionSql);
    concat!(
        " SELECT item.ordinality, own.id IS NOT NULL, coalesce(own.id, last.id),
                 coalesce(own.xid, last.xid), coalesce(own.seq, last.seq)
            FROM item",
        left_lookup!("fsm_transitions", "own", "own.id = item.id"),
        left_last_transition!("last", "own.id IS NULL"), "
           WHERE own.id IS NOT NULL OR last.to_state = item.to_state"
    )
}

/// A deletion that was made before: whether by an earlier try of the same call, and its position.
type Earlier = (bool, Position);

async fn find<D: Delete>(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<D::Request>>],
) -> QueryResult<HashMap<TransitionId, Earlier>> {
    let entities = column(round, D::entity);
    let (entity_type, deleted) = D::JOURNAL;
    let statement = FindDeletions {
        id: column(round, |item| D::transition_id(item)),
        namespace: entities.iter().map(|(it, _)| *it).collect(),
        entity_type: column(round, |_| entity_type),
        entity_id: entities.iter().map(|(_, id)| *id).collect(),
        to_state: column(round, |_| deleted),
    };
    let rows: Vec<(i64, bool, Position)> = statement.load(connection).await?;
    let rows = rows
        .into_iter()
        .filter_map(|(ordinality, is_ours, position)| {
            let (_, item) = round.get(index_of(ordinality))?;
            Some((D::transition_id(item), (is_ours, position)))
        });
    Ok(rows.collect())
}

fn answer<D: Delete>(
    request: &Scoped<D::Request>,
    deleted: &Positions,
    earlier: Option<Earlier>,
) -> Result<Deleted> {
    let by_this_try = deleted.get(&D::transition_id(request));
    let by_this_try = by_this_try.map(|position| (true, *position));
    let found = by_this_try.or(earlier);
    let is_deleted = found.is_some_and(|(is_ours, _)| is_ours);
    match D::not_found(request) {
        Some(error) if !is_deleted => Err(error),
        _ => Ok(Deleted {
            is_deleted,
            journal: D::entity(request).0.to_owned(),
            position: found.map(|(_, position)| position),
        }),
    }
}
