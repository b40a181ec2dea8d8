//! Reads by key: many callers share a round trip, and equal requests share a row.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use super::{Operation, statement::index_of};
use crate::{db::DbError, domain::error::Result};

/// A kind of row that callers read by key.
pub trait Lookup: Send + Sync + 'static {
    /// The name of the operation in metrics and traces.
    const NAME: &'static str;
    /// The request to read a row.
    type Request: Send + Sync + 'static;
    /// All that the answer depends on, the tenant included.
    type Key<'a>: Eq + Hash;
    /// The row.
    type Row: Clone + Send + 'static;

    /// Returns the key of a request. Requests with equal keys get the same row.
    fn key(request: &Self::Request) -> Self::Key<'_>;
    /// Returns the answer to a request whose row does not exist.
    fn if_missing(request: &Self::Request) -> Result<Self::Row>;

    /// Reads rows, each with the `ordinality` of its request.
    fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Self::Request],
    ) -> impl Future<Output = QueryResult<Vec<(i64, Self::Row)>>> + Send;
}

/// The operation that reads rows of a kind.
pub struct LookupOperation<L>(PhantomData<L>);

impl<L: Lookup> Operation for LookupOperation<L> {
    const NAME: &'static str = L::NAME;

    type Item = L::Request;
    type Answer = L::Row;
    type Key = u64;

    /// Sends equal requests to the same worker, so that they meet in a batch.
    fn key(item: &Self::Item) -> u64 {
        super::hash(&L::key(item))
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        Box::pin(async move {
            let (distinct, positions) = distinct::<L>(items);
            let missing = distinct.iter().map(|request| L::if_missing(request));
            let mut answers: Vec<Result<L::Row>> = missing.collect();
            for (ordinality, row) in L::read(connection, &distinct).await? {
                if let Some(answer) = answers.get_mut(index_of(ordinality)) {
                    *answer = Ok(row);
                }
            }
            if distinct.len() < items.len() {
                let positions = positions.into_iter();
                answers = positions
                    .filter_map(|index| answers.get(index).cloned())
                    .collect();
            }
            Ok(answers)
        })
    }
}

/// Returns one request of each key, and for each item the index of the request with its key.
fn distinct<'a, L: Lookup>(items: &[&'a L::Request]) -> (Vec<&'a L::Request>, Vec<usize>) {
    let mut distinct = Vec::with_capacity(items.len());
    let mut indexes = HashMap::with_capacity(items.len());
    let positions = items.iter().map(|item| {
        *indexes.entry(L::key(item)).or_insert_with(|| {
            distinct.push(*item);
            distinct.len() - 1
        })
    });
    let positions = positions.collect();
    (distinct, positions)
}
