//! Writes that are decided in Rust.
//!
//! A batch is read, decided by the rules of a slice's `model`, and written by one
//! statement that changes only rows that are still as they were read. So rules
//! are in one place, several changes of one row in one batch apply in their
//! order, and no lock is held while we think. Within a process nobody else
//! changes the same row meanwhile; where another replica does, whoever is
//! overtaken reads and decides again.

use std::{collections::HashSet, hash::Hash};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use super::DbError;
use crate::error::{Error, Result};

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

/// Does items by a plan until none of them is overtaken, and answers each in its place.
pub fn until_decided<'a, P: Plan<'a>>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a P::Item],
) -> BoxFuture<'a, Result<Vec<Result<P::Answer>>, DbError>>
where
    P::Answer: 'a,
{
    Box::pin(async move {
        let mut answers: Vec<Result<P::Answer>> =
            items.iter().map(|_| Err(Error::Overtaken)).collect();
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..MAX_ATTEMPTS {
            let batch = open.iter().filter_map(|place| items.get(*place).copied());
            let batch: Vec<&'a P::Item> = batch.collect();
            let mut plan = P::read(connection, &batch).await?;
            let decided: Vec<_> = batch.iter().map(|item| plan.decide(item)).collect();
            let overtaken = plan.write(connection).await?;
            let mut left = Vec::new();
            for ((place, item), answer) in open.into_iter().zip(&batch).zip(decided) {
                match answers.get_mut(place) {
                    Some(slot) if !overtaken.contains(&P::key(item)) => *slot = answer,
                    _ => left.push(place),
                }
            }
            open = left;
            if open.is_empty() {
                break;
            }
        }
        Ok(answers)
    })
}
