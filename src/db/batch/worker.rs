//! The workers of a batcher: each runs the jobs of its queue, batch by batch.
//!
//! # Tenants apart
//!
//! A batch of several tenants that times out runs again tenant by tenant. A tenant whose own items
//! time out again is set apart: a task of its own runs its jobs, so that others wait for no
//! further timeout of it. It rejoins the others when it has had no timeout for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Duration, Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{
    BYTES_PER_WEIGHT, Operation,
    fair_queue::{FairQueue, Queueable},
    split,
};
use crate::{
    db::{Database, DbError, planner::BatchTimeouts, retry::Retries},
    domain::error::{Error, Result},
    ops::{metrics::OperationMetrics, spans},
    util::panics::contain,
};

/// The maximum weight of a batch: that of as many items without large documents. Beyond a few
/// hundred items statements get no faster per item, and the first item waits for the last.
const MAX_WEIGHT: usize = 512;

/// How many items may wait for a worker before further calls are rejected: about as many as
/// it completes in a second.
const QUEUE_ITEMS: usize = 16_384;

/// How many tenants of a batch may fail alone. If more do, a whole table may be locked: the rest gets
/// the error of the batch.
const MAX_FAILED_TENANTS: usize = 8;

/// How many tenants of a worker may be apart. Each uses a connection while it runs a batch.
const MAX_APART: usize = 2;

/// How long a tenant stays apart after its last timeout.
const APART_FOR: Duration = Duration::from_secs(10);

/// Some items of one call, which run in one batch.
pub(super) struct Job<O: Operation> {
    items: Vec<O::Item>,
    reply: oneshot::Sender<Vec<Result<O::Answer>>>,
    queued_at: Instant,
    /// The span of the call, which the span of the batch links to.
    span: Span,
    _queued: Queued,
}

impl<O: Operation> Job<O> {
    /// Makes a job of items of one tenant.
    pub(super) fn new(
        items: Vec<O::Item>,
        reply: oneshot::Sender<Vec<Result<O::Answer>>>,
        metrics: &OperationMetrics,
    ) -> Self {
        let queued = Queued::new(&metrics.queued, items.len());
        Job {
            items,
            reply,
            queued_at: Instant::now(),
            span: Span::current(),
            _queued: queued,
        }
    }

    /// Whether a caller still waits for the answers.
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }
}

impl<O: Operation> Queueable for Job<O> {
    /// The items of a call have the same tenant.
    fn tenant(&self) -> &str {
        self.items.first().map_or("", O::tenant)
    }

    fn places(&self) -> usize {
        self.items.len()
    }

    fn weight(&self) -> usize {
        let bytes: usize = self.items.iter().map(O::document_bytes).sum();
        self.items.len() + bytes / BYTES_PER_WEIGHT
    }
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

/// A worker and its queue.
pub(super) struct Worker<O: Operation> {
    database: Database,
    metrics: OperationMetrics,
    queue: Mutex<FairQueue<Job<O>>>,
    /// Told of each new job.
    arrived: Notify,
    closed: CancellationToken,
    /// The tenants that may still be set apart.
    apart: Arc<Semaphore>,
}

impl<O: Operation> Worker<O> {
    /// Starts a worker, on the current tokio runtime.
    pub(super) fn start(database: &Database) -> Arc<Self> {
        let worker = Arc::new(Worker {
            database: database.clone(),
            metrics: database.metrics().operation(O::NAME),
            queue: Mutex::new(FairQueue::new(QUEUE_ITEMS)),
            arrived: Notify::new(),
            closed: CancellationToken::new(),
            apart: Arc::new(Semaphore::new(MAX_APART)),
        });
        tokio::spawn(Arc::clone(&worker).run());
        worker
    }

    /// Returns the metrics of the operation.
    pub(super) fn metrics(&self) -> &OperationMetrics {
        &self.metrics
    }

    /// Adds a job to the queue. Returns false if its tenant has no place left.
    pub(super) fn push(&self, job: Job<O>) -> bool {
        let is_accepted = self.queue().push(job);
        self.arrived.notify_one();
        is_accepted
    }

    /// Stops the worker once its queue is empty.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<Job<O>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>) {
        loop {
            let jobs = self.queue().take(MAX_WEIGHT);
            if !jobs.is_empty() {
                self.run_batch(jobs).await;
                continue;
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = self.closed.cancelled() => return,
            }
        }
    }

    /// Runs a batch of several tenants.
    async fn run_batch(self: &Arc<Self>, mut jobs: Vec<Job<O>>) {
        // Sorting is stable, so the jobs of a tenant stay in their order.
        jobs.sort_by(|a, b| a.tenant().cmp(b.tenant()));
        let batch = async |jobs| {
            for (jobs, error) in self.run_by_tenant(jobs).await {
                match Arc::clone(&self.apart).try_acquire_owned() {
                    Ok(permit) if error.is_timeout() => self.set_apart(jobs, error, permit),
                    _ => self.split(jobs, error).await,
                }
            }
        };
        self.measure(jobs, batch).await;
    }

    /// Runs jobs as one batch. If it fails, runs those of each tenant as one. Returns the tenants
    /// whose own batches fail.
    async fn run_by_tenant(&self, jobs: Vec<Job<O>>) -> Vec<(Vec<Job<O>>, DbError)> {
        let error = match self
            .attempt(&jobs, Retries::default(), BatchTimeouts::Whole)
            .await
        {
            Ok(answers) => {
                answer(jobs, answers);
                return Vec::new();
            }
            Err(error) => error,
        };
        let mut tenants = by_tenant(jobs);
        if tenants.len() == 1 || split::concerns_all(&error) {
            return vec![(tenants.drain(..).flatten().collect(), error)];
        }
        let timeouts = split::timeouts_after(&error, BatchTimeouts::Whole);
        let error = Error::from(error);
        let mut failed = Vec::new();
        for jobs in tenants {
            if failed.len() >= MAX_FAILED_TENANTS {
                answer_all(jobs, &error);
                continue;
            }
            match self.attempt(&jobs, Retries::spent(), timeouts).await {
                Ok(answers) => answer(jobs, answers),
                Err(error) => failed.push((jobs, error)),
            }
        }
        failed
    }

    /// Starts a task that runs the jobs of a tenant from now on, first those that timed out.
    fn set_apart(
        self: &Arc<Self>,
        jobs: Vec<Job<O>>,
        error: DbError,
        permit: OwnedSemaphorePermit,
    ) {
        let tenant: Arc<str> = Arc::from(jobs.first().map_or("", Job::tenant));
        let arrived = self.queue().set_apart(Arc::clone(&tenant));
        tracing::debug!(namespace = %tenant, operation = O::NAME, "set a tenant apart whose items time out");
        let apart = Apart {
            worker: Arc::clone(self),
            tenant,
            _permit: permit,
        };
        tokio::spawn(apart.run(jobs, error, arrived));
    }

    /// Runs jobs as one batch, with retries.
    async fn attempt(
        &self,
        jobs: &[Job<O>],
        retries: Retries,
        timeouts: BatchTimeouts,
    ) -> Result<Vec<Result<O::Answer>>, DbError> {
        let is_wanted = || jobs.iter().any(Job::is_wanted);
        let batch = split::Batch::new(&self.database, &is_wanted);
        batch.attempt::<O>(&items(jobs), retries, timeouts).await
    }

    /// Takes jobs that failed together apart until the items at fault are alone, and answers all.
    async fn split(&self, jobs: Vec<Job<O>>, error: DbError) {
        let is_wanted = || jobs.iter().any(Job::is_wanted);
        let mut batch = split::Batch::new(&self.database, &is_wanted);
        let answers = batch
            .split::<O>(&items(&jobs), error, BatchTimeouts::Whole)
            .await;
        answer(jobs, answers);
    }

    /// Runs a batch, and observes its waits and its duration. Items of cancelled calls are not
    /// run. A panic ends the batch, but not the worker.
    async fn measure(&self, mut jobs: Vec<Job<O>>, run: impl AsyncFnOnce(Vec<Job<O>>)) {
        jobs.retain(Job::is_wanted);
        if jobs.is_empty() {
            return;
        }
        let begun = Instant::now();
        for job in &jobs {
            let waited = begun.saturating_duration_since(job.queued_at);
            self.metrics.wait_seconds.observe(waited.as_secs_f64());
        }
        let count = jobs.iter().map(Job::places).sum::<usize>();
        let span = spans::batch(O::NAME, count, jobs.iter().map(|job| &job.span));
        contain(
            O::NAME,
            self.database.metrics().panics(),
            run(jobs).instrument(span),
        )
        .await;
        self.metrics.items.observe(count as f64);
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    }
}

/// A tenant that is apart, until it is dropped.
struct Apart<O: Operation> {
    worker: Arc<Worker<O>>,
    tenant: Arc<str>,
    _permit: OwnedSemaphorePermit,
}

impl<O: Operation> Apart<O> {
    /// Runs the jobs of the tenant until it has had no timeout for [`APART_FOR`].
    async fn run(self, jobs: Vec<Job<O>>, error: DbError, arrived: Arc<Notify>) {
        let worker = &self.worker;
        worker
            .measure(jobs, async |jobs| worker.split(jobs, error).await)
            .await;
        let mut until = Instant::now() + APART_FOR;
        loop {
            let jobs = worker.queue().take_apart(&self.tenant, MAX_WEIGHT);
            if jobs.is_empty() {
                tokio::select! {
                    () = arrived.notified() => continue,
                    () = sleep_until(until) => return,
                    () = worker.closed.cancelled() => return,
                }
            }
            let batch = async |jobs: Vec<_>| match worker
                .attempt(&jobs, Retries::default(), BatchTimeouts::Part)
                .await
            {
                Ok(answers) => answer(jobs, answers),
                Err(error) => {
                    if error.is_timeout() {
                        until = Instant::now() + APART_FOR;
                    }
                    worker.split(jobs, error).await;
                }
            };
            worker.measure(jobs, batch).await;
        }
    }
}

impl<O: Operation> Drop for Apart<O> {
    fn drop(&mut self) {
        self.worker.queue().rejoin(&self.tenant);
        self.worker.arrived.notify_one();
    }
}

fn items<O: Operation>(jobs: &[Job<O>]) -> Vec<&O::Item> {
    jobs.iter().flat_map(|job| &job.items).collect()
}

/// Splits jobs, which are sorted by tenant.
fn by_tenant<O: Operation>(jobs: Vec<Job<O>>) -> Vec<Vec<Job<O>>> {
    let mut tenants: Vec<Vec<Job<O>>> = Vec::new();
    for job in jobs {
        match tenants.last_mut() {
            Some(last) if last.first().is_some_and(|it| it.tenant() == job.tenant()) => {
                last.push(job);
            }
            _ => tenants.push(vec![job]),
        }
    }
    tenants
}

/// Answers callers, which may be gone by now.
fn answer<O: Operation>(jobs: Vec<Job<O>>, answers: Vec<Result<O::Answer>>) {
    let mut answers = answers.into_iter();
    for job in jobs {
        let of_job = answers.by_ref().take(job.items.len()).collect();
        let _ = job.reply.send(of_job);
    }
}

fn answer_all<O: Operation>(jobs: Vec<Job<O>>, error: &Error) {
    for job in jobs {
        let answers = job.items.iter().map(|_| Err(error.clone())).collect();
        let _ = job.reply.send(answers);
    }
}
