//! The batch writer: concurrent calls share statements and commits.
//!
//! An [`Operation`] runs many items in one statement or a few. A [`Batcher`] has a few
//! workers for it. Each worker takes all items that are waiting in its queue, runs them as
//! one batch, and answers every caller. It never waits for more items, so a lone call runs
//! at once, and batches grow with the load. An answer to a write means that it is committed.
//!
//! Reads by key share their round trips in the same way.

pub mod delete;
pub mod insert_once;
pub mod lookup;
pub mod optimistic;
pub mod rounds;
mod split;
pub mod statement;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::Arc,
    time::Instant,
};

use diesel_async::AsyncPgConnection;
use futures_util::future::{BoxFuture, join_all};
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use tracing::{Instrument, Span};

use super::{Database, DbError};
use crate::{
    domain::error::{Error, Result, internal},
    ops::{metrics::OperationMetrics, spans},
    util::panics::contain,
};

/// How many workers an operation has. Each uses a connection while it runs a batch. With
/// two, one collects items while the other waits for a commit. More make batches smaller.
const WORKERS: usize = 2;

/// The number of items from which a batch takes no more calls. Beyond a few hundred items
/// statements get no faster per item, and the first item waits for the last.
const MAX_ITEMS: usize = 512;

/// How many items may wait for a worker before further calls are rejected: about as many as
/// it completes in a second.
const QUEUE_ITEMS: usize = 16_384;

/// Work that runs over many items at once.
pub trait Operation: Send + Sync + 'static {
    /// The name of the operation in metrics and traces.
    const NAME: &'static str;

    /// One item. A batch that loses its connection runs again, so items have to be
    /// idempotent.
    type Item: Send + Sync + 'static;
    /// The answer to one item.
    type Answer: Send + 'static;
    /// Items with equal keys run in the order of their arrival, and never on two workers
    /// at once.
    type Key: Hash;

    /// Returns the key of an item.
    fn key(item: &Self::Item) -> Self::Key;

    /// Runs `items` and returns their answers in order. A failure of a single item is its
    /// answer. An error concerns the whole batch, which may run again.
    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>>;

    /// Returns whether the batch left rows unread on the connection.
    fn leaves_rows(_answers: &[Result<Self::Answer>]) -> bool {
        false
    }

    /// Returns the answer to an item whose statement fails even when it runs alone.
    fn item_error(_item: &Self::Item, error: DbError) -> Error {
        error.into()
    }
}

/// The items that one call sends to one worker.
struct Job<O: Operation> {
    items: Vec<O::Item>,
    reply: oneshot::Sender<Vec<Result<O::Answer>>>,
    queued_at: Instant,
    /// The span of the call, which the span of the batch links to.
    span: Span,
    _queued: Queued,
    _slots: OwnedSemaphorePermit,
}

/// Counts items as queued until it is dropped.
struct Queued(IntGauge, i64);

impl Queued {
    fn new(gauge: &IntGauge, items: usize) -> Self {
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        gauge.add(items);
        Queued(gauge.clone(), items)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.sub(self.1);
    }
}

/// One worker's queue.
struct Queue<O: Operation> {
    jobs: mpsc::UnboundedSender<Job<O>>,
    /// Bounds the queue, in items.
    slots: Arc<Semaphore>,
}

/// Runs an operation for many callers. Its workers stop when it is dropped.
pub struct Batcher<O: Operation> {
    database: Database,
    metrics: OperationMetrics,
    queues: Vec<Queue<O>>,
}

impl<O: Operation> Batcher<O> {
    /// Starts the workers, on the current tokio runtime.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        let metrics = database.metrics().operation(O::NAME);
        let queues = (0..WORKERS).map(|_| {
            let (jobs, incoming) = mpsc::unbounded_channel();
            tokio::spawn(work(database.clone(), metrics.clone(), incoming));
            let slots = Arc::new(Semaphore::new(QUEUE_ITEMS));
            Queue { jobs, slots }
        });
        Batcher {
            database: database.clone(),
            metrics: metrics.clone(),
            queues: queues.collect(),
        }
    }

    /// Runs one item.
    ///
    /// # Errors
    /// Errors of the operation; [`Error::QueueFull`] if the queue is full.
    pub async fn submit(&self, item: O::Item) -> Result<O::Answer> {
        let worker = self.worker_of(&item);
        let answers = self.enqueue(worker, vec![item]).await;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(worker_gone()))
    }

    /// Runs many items, and returns their answers in order.
    pub async fn submit_all(&self, items: Vec<O::Item>) -> Vec<Result<O::Answer>> {
        let workers: Vec<usize> = items.iter().map(|item| self.worker_of(item)).collect();
        let mut per_worker: Vec<Vec<O::Item>> = self.queues.iter().map(|_| Vec::new()).collect();
        for (item, worker) in items.into_iter().zip(&workers) {
            if let Some(items) = per_worker.get_mut(*worker) {
                items.push(item);
            }
        }
        let jobs = per_worker.into_iter().enumerate();
        let answers = join_all(jobs.map(|(worker, items)| self.enqueue(worker, items))).await;
        let mut answers: Vec<_> = answers.into_iter().map(Vec::into_iter).collect();
        let mut next = |worker| answers.get_mut(worker).and_then(Iterator::next);
        let workers = workers.into_iter();
        workers
            .map(|worker| next(worker).unwrap_or_else(|| Err(worker_gone())))
            .collect()
    }

    fn worker_of(&self, item: &O::Item) -> usize {
        usize::try_from(hash(&O::key(item)) % self.queues.len() as u64).unwrap_or_default()
    }

    async fn enqueue(&self, worker: usize, items: Vec<O::Item>) -> Vec<Result<O::Answer>> {
        let count = items.len();
        let Some(queue) = self.queues.get(worker).filter(|_| count > 0) else {
            return Vec::new();
        };
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(slots) = Arc::clone(&queue.slots).try_acquire_many_owned(wanted) else {
            return (0..count).map(|_| Err(Error::QueueFull)).collect();
        };
        let (reply, answers) = oneshot::channel();
        let job = Job {
            items,
            reply,
            queued_at: Instant::now(),
            span: Span::current(),
            _queued: Queued::new(&self.metrics.queued, count),
            _slots: slots,
        };
        // A worker that is gone drops the job, so no answers arrive.
        let _ = queue.jobs.send(job);
        let answers = async { Ok(answers.await.unwrap_or_default()) };
        match self.database.outage().or_outage(answers).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
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

/// Runs batches until the batcher is dropped.
async fn work<O: Operation>(
    database: Database,
    metrics: OperationMetrics,
    mut incoming: mpsc::UnboundedReceiver<Job<O>>,
) {
    while let Some(first) = incoming.recv().await {
        let mut jobs = vec![first];
        let mut count = jobs.iter().map(|job| job.items.len()).sum::<usize>();
        while count < MAX_ITEMS {
            let Ok(job) = incoming.try_recv() else { break };
            count += job.items.len();
            jobs.push(job);
        }
        // Items of cancelled calls are not run.
        jobs.retain(|job| !job.reply.is_closed());
        let begun = Instant::now();
        for job in &jobs {
            let waited = begun.saturating_duration_since(job.queued_at);
            metrics.wait_seconds.observe(waited.as_secs_f64());
        }
        let count = jobs.iter().map(|job| job.items.len()).sum::<usize>();
        let span = spans::batch(O::NAME, count, jobs.iter().map(|job| &job.span));
        let batch = run_jobs(&database, &jobs).instrument(span);
        let answers = contain(O::NAME, database.metrics().panics(), batch).await;
        metrics.items.observe(count as f64);
        metrics.seconds.observe(begun.elapsed().as_secs_f64());
        // A panic ends the batch, but not the worker.
        let Some(answers) = answers else { continue };
        let mut answers = answers.into_iter();
        for job in jobs {
            let of_job = answers.by_ref().take(job.items.len()).collect();
            // The call may be cancelled by now.
            let _ = job.reply.send(of_job);
        }
    }
}

async fn run_jobs<O: Operation>(database: &Database, jobs: &[Job<O>]) -> Vec<Result<O::Answer>> {
    let items: Vec<&O::Item> = jobs.iter().flat_map(|job| &job.items).collect();
    let is_wanted = || jobs.iter().any(|job| !job.reply.is_closed());
    split::run::<O>(database, &items, &is_wanted).await
}
