//! Writes that are decided in Rust.
//!
//! A batch is read, decided by the rules of a slice's `model`, and written by one
//! statement that changes only rows that are still as they were read. So rules
//! are in one place, several changes of one row in one batch apply in their
//! order, and no lock is held while we think. Within a process nobody else
//! changes the same row meanwhile; where another replica does, whoever is
//! overtaken reads and decides again.

use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use super::DbError;
use crate::error::{Error, Result};

/// How often items whose rows others keep changing are decided again. Each time
/// somebody else got on, so this is far beyond what happens.
const MAX_ATTEMPTS: usize = 50;

/// What an attempt makes of its items: an answer, or `None` for one that was overtaken.
pub type Decided<A> = Vec<Option<Result<A>>>;

/// Reads, decides and writes items once.
pub type Attempt<T, A> = for<'a> fn(
    &'a mut AsyncPgConnection,
    &'a [&'a T],
) -> BoxFuture<'a, Result<Decided<A>, DbError>>;

/// Attempts items until none of them is overtaken, and answers each in its place.
pub fn until_decided<'a, T: Sync, A: Send + 'a>(
    connection: &'a mut AsyncPgConnection,
    items: &'a [&'a T],
    attempt: Attempt<T, A>,
) -> BoxFuture<'a, Result<Vec<Result<A>>, DbError>> {
    Box::pin(async move {
        let mut answers: Vec<Result<A>> = items.iter().map(|_| Err(Error::Overtaken)).collect();
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..MAX_ATTEMPTS {
            let batch: Vec<&T> = open
                .iter()
                .filter_map(|place| items.get(*place).copied())
                .collect();
            let decided = attempt(connection, &batch).await?;
            let mut overtaken = Vec::new();
            for (place, answer) in open.into_iter().zip(decided) {
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
