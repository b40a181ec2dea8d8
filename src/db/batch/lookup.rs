//! Reads by key: many callers share a round trip, and equal requests share a row.
//!
//! A batch stops reading when its rows have many bytes. The requests that are left then run
//! in further batches.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::{Stream, future::BoxFuture};

use super::{Answers, Operation, reservation::read_up_to, statement::index_of};
use crate::{
    db::DbError,
    domain::{error::Result, namespace::Scoped},
};

/// A kind of row that callers read by key.
pub trait Lookup: Send + Sync + 'static {
    /// The name of the operation in metrics and traces.
    const NAME: &'static str;
    /// The request to read a row, without its tenant.
    type Query: Send + Sync + 'static;
    /// All that the answer depends on, the tenant included.
    type Key<'a>: Eq + Hash;
    /// The row.
    type Row: Clone + Send + Sync + 'static;

    /// Returns the key of a request. Requests with equal keys get the same row.
    fn key(request: &Scoped<Self::Query>) -> Self::Key<'_>;
    /// Returns the answer to a request whose row does not exist.
    fn if_missing(request: &Scoped<Self::Query>) -> Result<Self::Row>;
    /// Returns the size of a row, in bytes.
    fn size(row: &Self::Row) -> usize;

    /// Reads rows, each with the `ordinality` of its request.
    fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<Self::Query>],
    ) -> impl Future<Output = QueryResult<Found<Self::Row>>> + Send;
}

/// The rows that a batch read, each with the `ordinality` of its request.
pub struct Found<R> {
    rows: Vec<(i64, R)>,
    /// Whether these are all rows.
    is_complete: bool,
}

impl<R> Found<R> {
    /// Makes the result of a batch that read all rows, because they are small.
    pub fn all(rows: impl IntoIterator<Item = (i64, R)>) -> Self {
        Found {
            rows: rows.into_iter().collect(),
            is_complete: true,
        }
    }

    /// Makes the result of a batch that stopped, because its rows exceed
    /// [`BATCH_BYTES`](super::reservation::BATCH_BYTES).
    pub fn part(rows: impl IntoIterator<Item = (i64, R)>) -> Self {
        Found {
            is_complete: false,
            ..Found::all(rows)
        }
    }

    /// Returns the rows, without their ordinalities.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut R> {
        self.rows.iter_mut().map(|(_, row)| row)
    }

    /// Converts the rows; `None` stands for a row that does not exist.
    pub fn filter_map<T>(self, mut convert: impl FnMut(R) -> Option<T>) -> Found<T> {
        let rows = self.rows.into_iter();
        Found {
            rows: rows
                .filter_map(|(ordinality, row)| Some((ordinality, convert(row)?)))
                .collect(),
            is_complete: self.is_complete,
        }
    }

    /// Collects rows. Leaves the remaining rows unread when they exceed
    /// [`BATCH_BYTES`](super::reservation::BATCH_BYTES).
    ///
    /// # Errors
    /// The error of a row.
    pub async fn collect(
        rows: impl Stream<Item = QueryResult<(i64, R)>>,
        size: impl Fn(&R) -> usize,
    ) -> QueryResult<Self> {
        let (rows, is_complete) = read_up_to(rows, |(_, row)| size(row)).await?;
        Ok(Found { rows, is_complete })
    }
}

/// The operation that reads rows of a kind.
pub struct LookupOperation<L>(PhantomData<L>);

impl<L: Lookup> Operation for LookupOperation<L> {
    const NAME: &'static str = L::NAME;
    const READS_DOCUMENTS: bool = true;

    type Item = Scoped<L::Query>;
    type Answer = L::Row;
    type Key = u64;

    /// Sends equal requests to the same worker, so that they meet in a batch.
    fn key(item: &Self::Item) -> u64 {
        super::hash(&L::key(item))
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let (distinct, positions) = distinct::<L>(items);
            let found = L::read(connection, &distinct).await?;
            let others = distinct.iter().map(|request| match found.is_complete {
                true => Some(L::if_missing(request)),
                false => None,
            });
            let mut answers: Answers<L::Row> = others.collect();
            for (ordinality, row) in found.rows {
                if let Some(answer) = answers.get_mut(index_of(ordinality)) {
                    *answer = Some(Ok(row));
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

    fn bytes_read(row: &L::Row) -> usize {
        L::size(row)
    }
}

/// Returns one request of each key, and for each item the index of the request with its key.
fn distinct<'a, L: Lookup>(
    items: &[&'a Scoped<L::Query>],
) -> (Vec<&'a Scoped<L::Query>>, Vec<usize>) {
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
