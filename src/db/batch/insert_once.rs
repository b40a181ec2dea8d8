//! Rows that are only ever appended: the same id with the same content once.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use super::{
    Operation,
    rounds::{Placed, in_order, rounds},
};
use crate::db::DbError;
use crate::domain::{
    error::{Error, Result},
    namespace::Scoped,
    write_outcome::{Recorded, replay},
};

/// Why a row was not inserted: its id, whether the row that it belongs to is
/// there, whether the id is taken, be it by this tenant or by another, and the
/// row that has it, if the same request stored it.
///
/// Of a row that another request stored nothing is read, so that one's own makes
/// no more work than another tenant's.
pub type Found<I, R> = (I, bool, bool, Option<R>);

/// A kind of row that is appended.
pub trait Append: Send + Sync + 'static {
    /// The name of the operation that appends them, for metrics.
    const NAME: &'static str;
    /// A row to append.
    type New: Send + Sync + 'static;
    /// The row as it is stored.
    type Row: Send + 'static;
    /// Names a row.
    type Id: Copy + Eq + Hash + Send + Sync;
    /// What rows have in common that are appended in their order.
    type Key: Hash;
    /// The foreign key to the row that a row belongs to.
    const OWNER_KEY: &str;

    /// The key of a row.
    fn key(new: &Self::New) -> Self::Key;
    /// The id of a row, and whether the caller chose it.
    fn identity(new: &Self::New) -> (Self::Id, bool);
    /// The row that a new one became.
    fn stored(new: &Scoped<Self::New>, created_at: DateTime<Utc>) -> Self::Row;
    /// The id is taken.
    fn id_conflict(new: &Self::New) -> Error;
    /// The row that it belongs to is not there.
    fn no_owner(new: &Self::New) -> Error;

    /// Inserts those whose id is free and whose owner is there; answers which.
    fn insert(
        connection: &mut AsyncPgConnection,
        round: &[Placed<'_, Scoped<Self::New>>],
    ) -> impl Future<Output = QueryResult<Vec<(Self::Id, DateTime<Utc>)>>> + Send;

    /// Finds out why others were not inserted.
    fn find(
        connection: &mut AsyncPgConnection,
        others: &[Placed<'_, Scoped<Self::New>>],
    ) -> impl Future<Output = QueryResult<Vec<Found<Self::Id, Self::Row>>>> + Send;
}

/// Appends rows of a kind.
pub struct Appending<A>(PhantomData<A>);

impl<A: Append> Operation for Appending<A> {
    const NAME: &'static str = A::NAME;

    type Item = Scoped<A::New>;
    type Answer = Recorded<A::Row>;
    type Key = A::Key;

    fn key(item: &Self::Item) -> A::Key {
        A::key(item)
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for round in rounds(items, |item| [A::identity(item).0]) {
                append::<A>(connection, &round, &mut answers).await?;
            }
            Ok(in_order(answers))
        })
    }

    /// The owner was deleted between our looking and our writing.
    fn refusal(item: &Self::Item, error: DbError) -> Error {
        match error.constraint() {
            Some(constraint) if constraint == A::OWNER_KEY => A::no_owner(item),
            _ => error.into(),
        }
    }
}

type Answers<R> = Vec<(usize, Result<Recorded<R>>)>;

async fn append<A: Append>(
    connection: &mut AsyncPgConnection,
    round: &[Placed<'_, Scoped<A::New>>],
    answers: &mut Answers<A::Row>,
) -> QueryResult<()> {
    let others = insert::<A>(connection, round, answers).await?;
    let late = find::<A>(connection, &others, answers).await?;
    // Their owner came, or their id became free, between our writing and our looking.
    let taken = insert::<A>(connection, &late, answers).await?;
    answers.extend(
        taken
            .into_iter()
            .map(|(place, new)| (place, Err(A::id_conflict(new)))),
    );
    Ok(())
}

/// Inserts what can be, and answers the others.
async fn insert<'a, A: Append>(
    connection: &mut AsyncPgConnection,
    round: &[Placed<'a, Scoped<A::New>>],
    answers: &mut Answers<A::Row>,
) -> QueryResult<Vec<Placed<'a, Scoped<A::New>>>> {
    if round.is_empty() {
        return Ok(Vec::new());
    }
    let inserted = A::insert(connection, round).await?;
    let inserted: HashMap<_, _> = inserted.into_iter().collect();
    let mut others = Vec::new();
    for (place, new) in round {
        match inserted.get(&A::identity(new).0) {
            Some(created_at) => {
                let row = A::stored(new, *created_at);
                answers.push((*place, Ok(Recorded { row, created: true })));
            }
            None => others.push((*place, *new)),
        }
    }
    Ok(others)
}

/// Finds out why rows were not inserted, and answers those for which there is no reason.
async fn find<'a, A: Append>(
    connection: &mut AsyncPgConnection,
    others: &[Placed<'a, Scoped<A::New>>],
    answers: &mut Answers<A::Row>,
) -> QueryResult<Vec<Placed<'a, Scoped<A::New>>>> {
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let found = A::find(connection, others).await?.into_iter();
    let found = found.map(|(id, has_owner, is_taken, same)| (id, (has_owner, is_taken, same)));
    let mut found: HashMap<_, _> = found.collect();
    let mut late = Vec::new();
    for (place, new) in others {
        let (id, is_id_chosen) = A::identity(new);
        let answer = match found.remove(&id) {
            Some((true, false, _)) => {
                late.push((*place, *new));
                continue;
            }
            Some((true, true, same)) => replay(same, is_id_chosen, || A::id_conflict(new)),
            _ => Err(A::no_owner(new)),
        };
        answers.push((*place, answer));
    }
    Ok(late)
}
