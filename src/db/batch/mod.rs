//! The batch writer: concurrent calls share statements and commits.
//!
//! An [`Operation`] runs many items in one statement or a few. A [`Batcher`] has a few
//! workers for it. Each worker takes the items that are waiting in its queue, runs them as
//! one batch, and answers every caller. It never waits for more items, so a lone call runs
//! at once, and batches grow with the load. An answer to a write means that it is committed.
//!
//! Tenants take turns in the [queue](fair_queue), and a batch has a maximum weight. A tenant
//! whose items make a batch time out runs [apart](worker) for a while.
//!
//! Reads by key share their round trips in the same way.

mod batch_limit;
pub mod call_hooks;
pub mod delete;
mod fair_queue;
pub mod insert_once;
mod job;
pub mod lookup;
pub mod optimistic;
pub mod queue_time;
pub mod reservation;
pub mod rounds;
mod split;
pub mod statement;
mod turn_order;
pub mod weights;
mod worker;

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::{Arc, Weak},
};

use diesel_async::AsyncPgConnection;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::oneshot;

use self::{job::Job, reservation::Held, worker::Worker};
use super::{Database, DbError};
use crate::domain::error::{Error, Result, internal};

/// How many workers an operation has. Each uses a connection while it runs a batch. With
/// two, one collects items while the other waits for a commit. More make batches smaller.
const WORKERS: usize = 2;

/// The number of items of one call that run in the same batch. The items of a larger call wait for
/// their turns in parts.
const JOB_ITEMS: usize = 64;

/// The size of documents that weighs as much in a batch as an item without documents, in bytes.
const BYTES_PER_WEIGHT: usize = 4096;

/// The answers of a batch, in the order of its items. `None`: the batch stopped before it read what
/// the item needs, and the item runs again in the next batch.
pub type Answers<A> = Vec<Option<Result<A>>>;

/// Work that runs over many items at once.
pub trait Operation: Send + Sync + 'static {
    /// The name of the operation in metrics and traces.
    const NAME: &'static str;
    /// Whether the operation reads documents, other than those of its items. Its batches reserve
    /// memory first. They may answer `None` for items whose documents did not fit. A call with several
    /// items keeps no memory for its answers.
    const READS_DOCUMENTS: bool = false;

    /// One item. A batch that loses its connection runs again, so items have to be
    /// idempotent.
    type Item: Send + Sync + 'static;
    /// The answer to one item.
    type Answer: Send + Sync + 'static;
    /// Items of a tenant with equal keys run in the order of their arrival, and never on two
    /// workers at once.
    type Key: Hash;

    /// Returns the key of an item.
    fn key(item: &Self::Item) -> Self::Key;
    /// Returns the tenant whose turn an item takes; an empty name for the service itself.
    fn tenant(item: &Self::Item) -> &str;
    /// Returns the size of the documents in an item, in bytes.
    fn document_bytes(_item: &Self::Item) -> usize {
        0
    }

    /// Returns the namespace in whose journal the operation may write a row for an item; `None` if it
    /// writes none.
    fn journal(_item: &Self::Item) -> Option<&str> {
        None
    }

    /// Runs `items`. A failure of a single item is its answer. An error concerns the whole batch,
    /// which may run again. A batch of one item is always answered.
    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>>;

    /// Returns the size of the documents in an answer, in bytes.
    fn bytes_read(_answer: &Self::Answer) -> usize {
        0
    }

    /// Returns the answer to an item whose statement fails even when it runs alone.
    fn item_error(_item: &Self::Item, error: DbError) -> Error {
        error.into()
    }
}

/// Runs an operation for many callers. Its workers stop when it is dropped.
pub struct Batcher<O: Operation> {
    database: Database,
    workers: Vec<Arc<Worker<O>>>,
}

impl<O: Operation> Batcher<O> {
    /// Starts the workers, on the current tokio runtime.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        let workers = (0..WORKERS).map(|_| Worker::start(database));
        let batcher = Batcher {
            database: database.clone(),
            workers: workers.collect(),
        };
        batcher.count_tenants();
        batcher
    }

    /// Counts the tenants in the queues before each scrape of the metrics.
    fn count_tenants(&self) {
        let metrics = self.database.metrics();
        let waits = metrics.waits().clone();
        let workers: Vec<_> = self.workers.iter().map(Arc::downgrade).collect();
        metrics.on_scrape(move || {
            let (mut waiting, mut apart) = (HashSet::new(), HashSet::new());
            for worker in workers.iter().filter_map(Weak::upgrade) {
                worker.tenants(&mut waiting, &mut apart);
            }
            waits.set_tenants(O::NAME, waiting.len(), apart.len());
        });
    }

    /// Runs one item.
    ///
    /// # Errors
    /// Errors of the operation; [`Error::QueueFull`] if the queue is full.
    pub async fn submit(&self, item: O::Item) -> Result<O::Answer> {
        self.submit_held(item).await.map(|held| held.answer)
    }

    /// Runs one item of an operation that reads documents. The memory of the answer has to be held
    /// until the response is encoded.
    ///
    /// # Errors
    /// As those of [`Batcher::submit`].
    pub async fn submit_held(&self, item: O::Item) -> Result<Held<O::Answer>> {
        let worker = self.worker_of(&item);
        let answers = self.enqueue(worker, vec![item], false).await;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(worker_gone()))
    }

    /// Runs many items of one tenant, and returns their answers in order.
    pub async fn submit_all(&self, items: Vec<O::Item>) -> Vec<Result<O::Answer>> {
        let is_part = items.len() > 1;
        let workers: Vec<usize> = items.iter().map(|item| self.worker_of(item)).collect();
        let mut per_worker: Vec<Vec<O::Item>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (item, worker) in items.into_iter().zip(&workers) {
            if let Some(items) = per_worker.get_mut(*worker) {
                items.push(item);
            }
        }
        let per_worker = per_worker.into_iter().enumerate();
        let answers = per_worker.map(async |(worker, items)| {
            let answers = self.enqueue(worker, items, is_part).await.into_iter();
            answers.map(|answer| answer.map(|held| held.answer))
        });
        let mut answers = join_all(answers).await;
        let mut next = |worker| answers.get_mut(worker).and_then(Iterator::next);
        let workers = workers.into_iter();
        workers
            .map(|worker| next(worker).unwrap_or_else(|| Err(worker_gone())))
            .collect()
    }

    fn worker_of(&self, item: &O::Item) -> usize {
        usize::try_from(hash(&O::key(item)) % self.workers.len() as u64).unwrap_or_default()
    }

    /// Runs items of one call on a worker; `is_part` if the call has others.
    async fn enqueue(&self, worker: usize, mut items: Vec<O::Item>, is_part: bool) -> Results<O> {
        let count = items.len();
        let Some(worker) = self.workers.get(worker) else {
            return Vec::new();
        };
        let (mut jobs, mut parts) = (Vec::new(), Vec::new());
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(JOB_ITEMS));
            let (reply, answers) = oneshot::channel();
            parts.push((items.len(), answers));
            jobs.push(Job::new(items, is_part, reply, worker.metrics()));
            items = rest;
        }
        if !worker.push(jobs) {
            return (0..count).map(|_| Err(Error::QueueFull)).collect();
        }
        // A batch that panicked has dropped its jobs, so no answers arrive.
        let parts = parts.into_iter().map(async |(count, answers)| {
            let lost = |_| {
                (0..count)
                    .map(|_| Err(worker_gone()))
                    .collect::<Results<O>>()
            };
            answers.await.unwrap_or_else(lost)
        });
        let answers = async { Ok(join_all(parts).await.into_iter().flatten().collect()) };
        match self.database.outage().or_outage(answers).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }
}

/// The results of the items of a job, in order.
type Results<O> = Vec<Result<Held<<O as Operation>::Answer>>>;

impl<O: Operation> Drop for Batcher<O> {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.close();
        }
    }
}

fn hash(key: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

/// Returns the error for an item without an answer: its worker panicked, or was shut down.
pub(crate) fn worker_gone() -> Error {
    internal("a batch worker is gone")
}
