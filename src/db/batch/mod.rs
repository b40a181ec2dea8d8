//! The batch writer: concurrent calls share statements and commits.
//!
//! An [`Operation`] knows how to do many items in one go. A [`Batcher`] keeps a
//! few workers for it; each takes whatever is waiting in its queue, never
//! waiting for more, does it in one go, and answers every caller. Under load
//! the batches grow by themselves, and a lone call goes straight through. An
//! answer to a write means that it is committed.
//!
//! Reads by key share their round trips in just the same way.

pub mod insert_once;
pub mod optimistic;
pub mod rounds;
pub mod statement;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Instant,
};

use diesel_async::AsyncPgConnection;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use tracing::{Instrument, Span};

use super::{Database, DbError, retry::Retries};
use crate::{
    domain::error::{Error, Result, internal},
    ops::{metrics::OperationMetrics, spans},
};

/// How many workers an operation has, each with a connection while it works.
/// Two keep both sides busy, one waiting for a commit while the other collects;
/// more make the batches smaller.
const WORKERS: usize = 2;

/// From how many items on a batch takes no more calls. Statements get no faster
/// per item beyond a few hundred, and the answer to the first waits for the last.
const MAX_ITEMS: usize = 512;

/// How many items may wait for a worker before callers are turned away: a
/// second's worth or so.
const QUEUE_ITEMS: usize = 16_384;

/// Something that is done to many items at once.
pub trait Operation: Send + Sync + 'static {
    /// What it is called in metrics and traces.
    const NAME: &'static str;

    /// One item. It is kept until it is answered, to be done again if the
    /// connection is lost, so doing it twice has to be the same as doing it once.
    type Item: Send + Sync + 'static;
    /// What comes of one item.
    type Answer: Send + 'static;
    /// What an item is about. Items with equal keys are done in the order in
    /// which they came, and never by two workers at a time.
    type Key: Hash;

    /// The key of an item.
    fn key(item: &Self::Item) -> Self::Key;

    /// Does `items` and answers each in its place. The failure of a single item
    /// is its answer; an error is about all, and they may be done again.
    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>>;

    /// What a statement failure that one single item causes means for it.
    fn refusal(_item: &Self::Item, error: DbError) -> Error {
        error.into()
    }
}

/// The items of one call that go to one worker, and where the answers go.
struct Job<O: Operation> {
    items: Vec<O::Item>,
    reply: oneshot::Sender<Vec<Result<O::Answer>>>,
    queued_at: Instant,
    /// The call's, for traces.
    span: Span,
    _queued: Queued,
    _room: OwnedSemaphorePermit,
}

/// Items that count as queued, until this is dropped.
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
    room: Arc<Semaphore>,
}

/// Runs an operation for many callers. Its workers end when it is dropped.
pub struct Batcher<O: Operation> {
    database: Database,
    metrics: OperationMetrics,
    queues: Vec<Queue<O>>,
}

impl<O: Operation> Batcher<O> {
    /// Starts the workers. Has to be called within a tokio runtime.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        let metrics = database.metrics().operation(O::NAME);
        let queues = (0..WORKERS).map(|_| {
            let (jobs, incoming) = mpsc::unbounded_channel();
            tokio::spawn(work(database.clone(), metrics.clone(), incoming));
            let room = Arc::new(Semaphore::new(QUEUE_ITEMS));
            Queue { jobs, room }
        });
        Batcher {
            database: database.clone(),
            metrics: metrics.clone(),
            queues: queues.collect(),
        }
    }

    /// Does one item.
    ///
    /// # Errors
    /// What the operation answers; [`Error::QueueFull`] if too many wait.
    pub async fn submit(&self, item: O::Item) -> Result<O::Answer> {
        let worker = self.worker(&item);
        let answers = self.enqueue(worker, vec![item]).await;
        answers.into_iter().next().unwrap_or_else(|| Err(gone()))
    }

    /// Does many items, and answers each in its place.
    pub async fn submit_all(&self, items: Vec<O::Item>) -> Vec<Result<O::Answer>> {
        let places: Vec<usize> = items.iter().map(|item| self.worker(item)).collect();
        let mut shares: Vec<Vec<O::Item>> = self.queues.iter().map(|_| Vec::new()).collect();
        for (item, worker) in items.into_iter().zip(&places) {
            if let Some(share) = shares.get_mut(*worker) {
                share.push(item);
            }
        }
        let shares = shares.into_iter().enumerate();
        let answers = join_all(shares.map(|(worker, share)| self.enqueue(worker, share))).await;
        let mut answers: Vec<_> = answers.into_iter().map(Vec::into_iter).collect();
        let mut next = |worker| answers.get_mut(worker).and_then(Iterator::next);
        let places = places.into_iter();
        places
            .map(|worker| next(worker).unwrap_or_else(|| Err(gone())))
            .collect()
    }

    fn worker(&self, item: &O::Item) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(O::key(item));
        usize::try_from(hash % self.queues.len() as u64).unwrap_or_default()
    }

    async fn enqueue(&self, worker: usize, items: Vec<O::Item>) -> Vec<Result<O::Answer>> {
        let count = items.len();
        let Some(queue) = self.queues.get(worker).filter(|_| count > 0) else {
            return Vec::new();
        };
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&queue.room).try_acquire_many_owned(wanted) else {
            return (0..count).map(|_| Err(Error::QueueFull)).collect();
        };
        let (reply, answers) = oneshot::channel();
        let job = Job {
            items,
            reply,
            queued_at: Instant::now(),
            span: Span::current(),
            _queued: Queued::new(&self.metrics.queued, count),
            _room: room,
        };
        // A worker that is gone has dropped the receiver or will drop the job;
        // either way there are no answers.
        let _ = queue.jobs.send(job);
        let answers = async { Ok(answers.await.unwrap_or_default()) };
        match self.database.outage().or_outage(answers).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }
}

/// Why a worker gave no answer: it panicked, or the server is being torn down.
pub(crate) fn gone() -> Error {
    internal("a batch worker is gone")
}

/// A worker: batch after batch until nobody can send any more.
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
        // A caller who went away before its items were taken costs nothing.
        jobs.retain(|job| !job.reply.is_closed());
        let begun = Instant::now();
        for job in &jobs {
            let waited = begun.saturating_duration_since(job.queued_at);
            metrics.wait_seconds.observe(waited.as_secs_f64());
        }
        let count = jobs.iter().map(|job| job.items.len()).sum::<usize>();
        let span = spans::batch(O::NAME, count, jobs.iter().map(|job| &job.span));
        let batch = AssertUnwindSafe(run_jobs(&database, &jobs)).catch_unwind();
        let answers = batch.instrument(span).await;
        metrics.items.observe(count as f64);
        metrics.seconds.observe(begun.elapsed().as_secs_f64());
        // A panic is the end of this batch, but not of the worker.
        let Ok(answers) = answers else { continue };
        let mut answers = answers.into_iter();
        for job in jobs {
            let share = answers.by_ref().take(job.items.len()).collect();
            // A caller who went away meanwhile does not hear of it.
            let _ = job.reply.send(share);
        }
    }
}

async fn run_jobs<O: Operation>(database: &Database, jobs: &[Job<O>]) -> Vec<Result<O::Answer>> {
    let items: Vec<&O::Item> = jobs.iter().flat_map(|job| &job.items).collect();
    let is_wanted = || jobs.iter().any(|job| !job.reply.is_closed());
    run::<O>(database, &items, Retries::default(), &is_wanted).await
}

/// Does items, trying again what may succeed, and taking apart a batch that
/// fails as a whole until the item that it fails for is alone.
fn run<'a, O: Operation>(
    database: &'a Database,
    items: &'a [&'a O::Item],
    retries: Retries,
    is_wanted: &'a (dyn Fn() -> bool + Sync),
) -> BoxFuture<'a, Vec<Result<O::Answer>>> {
    Box::pin(async move {
        if items.is_empty() {
            return Vec::new();
        }
        let error = match run_whole::<O>(database, items, retries, is_wanted).await {
            Ok(answers) => return answers,
            Err(error) => error,
        };
        match items {
            [item] => vec![Err(O::refusal(item, error))],
            _ if error.is_unavailable() => {
                let error = Error::from(error);
                items.iter().map(|_| Err(error.clone())).collect()
            }
            _ => {
                let (left, right) = items.split_at(items.len() / 2);
                let mut answers = run::<O>(database, left, Retries::spent(), is_wanted).await;
                answers.extend(run::<O>(database, right, Retries::spent(), is_wanted).await);
                answers
            }
        }
    })
}

/// Does items all together, until it works, or is hopeless, or nobody waits for it.
async fn run_whole<O: Operation>(
    database: &Database,
    items: &[&O::Item],
    mut retries: Retries,
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Result<O::Answer>>, DbError> {
    loop {
        let attempt = database.try_batch(async |connection| O::run(connection, items).await);
        let error = match attempt.await {
            Ok(answers) => return Ok(answers),
            Err(error) => error,
        };
        match retries.pause_after(&error) {
            Some(pause) if is_wanted() => database.pause(&error, pause).await,
            _ => return Err(error),
        }
    }
}
