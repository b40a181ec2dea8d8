//! Writes that are decided in Rust.
//!
//! A batch is read, decided by the rules of a slice's `model`, and written by one
//! statement that changes only rows that are still as they were read. So rules
//! are in one place, several changes of one row in one batch apply in their
//! order, and no lock is held while we think. Within an operation of a
//! process nobody else changes the same row meanwhile; where another operation or
//! another replica does, whoever is overtaken reads and decides again.

use std::{collections::HashSet, hash::Hash};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use crate::db::DbError;
use crate::domain::error::{Error, Result};

/// How often items whose rows others keep changing are decided again. Each time
/// somebody else got on, so this is far beyond what happens.
const MAX_ATTEMPTS: usize = 50;

/// What a batch found, and what it is going to write.
pub trait Plan<'a>: Sized + Send + Sync {
    /// A change that somebody asks for.
    type Item: Sync + 'a;
    /// What it answers.
    type Answer: Send;
    /// Names a row that items change.
    type Key: Eq + Hash + Send;

    /// The row that an item changes.
    fn key(item: &'a Self::Item) -> Self::Key;

    /// Reads what has to be known.
    fn read(
        connection: &mut AsyncPgConnection,
        items: &[&'a Self::Item],
    ) -> impl Future<Output = QueryResult<Self>> + Send;

    /// Decides one item, after those before it.
    ///
    /// # Errors
    /// Why it is refused.
    fn decide(&mut self, item: &'a Self::Item) -> Result<Self::Answer>;

    /// Writes what was decided, but nothing about rows that are not as they were
    /// read; answers which these are.
    fn write(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = QueryResult<HashSet<Self::Key>>> + Send;
}

/// What an attempt makes of its items: an answer, or `None` for one that was overtaken.
pub type Attempted<A> = Vec<Option<Result<A>>>;

/// Does items once.
pub type Attempt<'a, T, A> = for<'c> fn(
    &'c mut AsyncPgConnection,
    &'c [&'a T],
) -> BoxFuture<'c, Result<Attempted<A>, DbError>>;

/// Decides items by a plan until none of them is overtaken, and answers each in its place.
pub fn until_decided<'a, P: Plan<'a> + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a P::Item],
) -> BoxFuture<'a, Result<Vec<Result<P::Answer>>, DbError>> {
    until_done(connection, items, |connection, items| {
        Box::pin(decide::<P>(connection, items))
    })
}

async fn decide<'a, P: Plan<'a>>(
    connection: &mut AsyncPgConnection,
    items: &[&'a P::Item],
) -> Result<Attempted<P::Answer>, DbError> {
    let mut plan = P::read(connection, items).await?;
    let answers: Vec<_> = items.iter().map(|item| plan.decide(item)).collect();
    let overtaken = plan.write(connection).await?;
    let answers = items.iter().zip(answers);
    let answers =
        answers.map(|(item, answer)| (!overtaken.contains(&P::key(item))).then_some(answer));
    Ok(answers.collect())
}

/// Attempts items until none of them is overtaken, and answers each in its place.
pub fn until_done<'a, T: Sync, A: Send + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a T],
    attempt: Attempt<'a, T, A>,
) -> BoxFuture<'a, Result<Vec<Result<A>>, DbError>> {
    Box::pin(async move {
        let mut answers: Vec<Result<A>> = items.iter().map(|_| Err(Error::Contended)).collect();
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..MAX_ATTEMPTS {
            let batch = open.iter().filter_map(|place| items.get(*place).copied());
            let batch: Vec<&'a T> = batch.collect();
            let attempted = attempt(connection, &batch).await?;
            let mut overtaken = Vec::new();
            for (place, answer) in open.into_iter().zip(attempted) {
                match (answer, answers.get_mut(place)) {
                    (Some(answer), Some(slot)) => *slot = answer,
                    _ => overtaken.push(place),
                }
            }
            open = overtaken;
            if open.is_empty() {
                break;
            }
        }
        Ok(answers)
    })
}
