//! The workers of a batcher: each runs the jobs of its queue, batch by batch.
//!
//! # Tenants apart
//!
//! A batch of several tenants that times out runs again tenant by tenant. A tenant whose own items
//! time out again is set apart: a task of its own runs its jobs, so that others wait for no
//! further timeout of it. It rejoins the others when it has had no timeout for a while.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::{Duration, Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Answers, Operation,
    batch_limit::BatchLimit,
    fair_queue::{FairQueue, Queueable},
    job::Job,
    reservation::{Held, Reservation},
    split,
};
use crate::{
    db::{Database, DbError, planner::BatchTimeouts, retry::Retries},
    domain::error::{Error, Result},
    ops::{metrics::OperationMetrics, spans},
    util::panics::{contain, keep_running},
};

/// How many items may wait for a worker before further calls are rejected: about as many as
/// it completes in a second.
const QUEUE_ITEMS: usize = 16_384;

/// The number of tenants that time out in one batch before it is treated as a locked table: they get
/// their errors, and the others get the error of the last one.
const MAX_TIMED_OUT_TENANTS: usize = 8;

/// How long a tenant stays apart after its last timeout.
const APART_FOR: Duration = Duration::from_secs(10);

/// A worker and its queue.
pub(super) struct Worker<O: Operation> {
    database: Database,
    metrics: OperationMetrics,
    queue: Mutex<FairQueue<Job<O>>>,
    limit: BatchLimit,
    /// Signalled by each new job.
    arrived: Notify,
    closed: CancellationToken,
}

impl<O: Operation> Worker<O> {
    /// Starts a worker, on the current tokio runtime.
    pub(super) fn start(database: &Database) -> Arc<Self> {
        let worker = Arc::new(Worker {
            database: database.clone(),
            metrics: database.metrics().operation(O::NAME),
            queue: Mutex::new(FairQueue::new(QUEUE_ITEMS, database.weights().clone())),
            limit: BatchLimit::default(),
            arrived: Notify::new(),
            closed: CancellationToken::new(),
        });
        let running = Arc::clone(&worker);
        tokio::spawn(async move {
            let panics = running.database.metrics().panics();
            keep_running(O::NAME, panics, || running.run()).await;
        });
        worker
    }

    /// Returns the metrics of the operation.
    pub(super) fn metrics(&self) -> &OperationMetrics {
        &self.metrics
    }

    /// Adds the jobs of one call to the queue. Returns false, and adds none, if its tenant has not
    /// enough slots left.
    pub(super) fn push(&self, jobs: Vec<Job<O>>) -> bool {
        let mut queue = self.queue();
        let slots = jobs.iter().map(Job::slots).sum();
        let is_accepted = jobs
            .first()
            .is_none_or(|job| queue.has_room(job.tenant(), slots));
        if is_accepted {
            jobs.into_iter().for_each(|job| queue.push(job));
            self.arrived.notify_one();
        }
        is_accepted
    }

    /// Adds the tenants whose jobs wait, and those that are apart.
    pub(super) fn tenants(&self, waiting: &mut HashSet<Arc<str>>, apart: &mut HashSet<Arc<str>>) {
        self.queue().tenants(waiting, apart);
    }

    /// Stops the worker once its queue is empty.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<Job<O>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: &Arc<Self>) {
        loop {
            let jobs = self.queue().take(self.limit.weight());
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

    /// Runs the jobs of a batch, and sets the tenants apart whose own jobs time out.
    async fn run_batch(self: &Arc<Self>, jobs: Vec<Job<O>>) {
        // The parts of a call with many items wait for each other.
        let single = jobs.iter().filter(|job| job.is_single());
        if let Some(newest) = single.map(|job| job.queued_at).max() {
            self.database.queue_time().note(newest.elapsed());
        }
        let batch = async |jobs| {
            for failed in self.run_by_tenant(jobs).await {
                match failed.error.is_timeout() {
                    true => self.set_apart(failed),
                    false => self.split(failed, &self.limit).await,
                }
            }
        };
        self.measure(jobs, batch).await;
    }

    /// Runs jobs as one batch. If it fails, runs those of each tenant as one. Returns the tenants
    /// whose own batches fail.
    async fn run_by_tenant(&self, jobs: Vec<Job<O>>) -> Vec<Failed<O>> {
        let whole = self.attempt(jobs, Retries::default(), BatchTimeouts::Whole, &self.limit);
        let Some(Failed { jobs, error, .. }) = whole.await else {
            return Vec::new();
        };
        let timeouts = split::timeouts_after(&error, BatchTimeouts::Whole);
        let mut tenants = by_tenant(jobs).into_iter();
        if tenants.len() == 1 || split::concerns_all(&error) {
            return vec![Failed {
                jobs: tenants.flatten().collect(),
                error,
                timeouts: BatchTimeouts::Whole,
            }];
        }
        let mut failed: Vec<Failed<O>> = Vec::new();
        for jobs in tenants.by_ref() {
            let attempt = self.attempt(jobs, Retries::spent(), timeouts, &self.limit);
            failed.extend(attempt.await);
            let timed_out = failed.iter().filter(|it| it.error.is_timeout()).count();
            let concerns_all = failed
                .last()
                .is_some_and(|it| split::concerns_all(&it.error));
            if concerns_all || timed_out >= MAX_TIMED_OUT_TENANTS {
                break;
            }
        }
        let timed_out = failed.iter().filter(|it| it.error.is_timeout()).count();
        if timed_out < MAX_TIMED_OUT_TENANTS && tenants.len() == 0 {
            return failed;
        }
        let is_item_error =
            |it: &Failed<O>| !it.error.is_timeout() && !split::concerns_all(&it.error);
        let (item_errors, ended): (Vec<_>, Vec<_>) = failed.into_iter().partition(is_item_error);
        let mut error = Error::Contended;
        for failed in ended {
            error = failed.error.into();
            failed.jobs.into_iter().for_each(|job| job.fail(&error));
        }
        tenants.flatten().for_each(|job| job.fail(&error));
        item_errors
    }

    /// Starts a task that runs the jobs of a tenant from now on, first those that timed out.
    fn set_apart(self: &Arc<Self>, failed: Failed<O>) {
        let tenant: Arc<str> = Arc::from(failed.jobs.first().map_or("", Job::tenant));
        let arrived = self.queue().set_apart(Arc::clone(&tenant));
        tracing::info!(namespace = %tenant, operation = O::NAME, "items of a tenant time out, so they run apart from others'");
        let apart = Apart {
            worker: Arc::clone(self),
            tenant,
        };
        tokio::spawn(apart.run(failed, arrived));
    }

    /// Runs jobs as one batch, with retries, and answers their callers. Returns them if it fails.
    async fn attempt(
        &self,
        jobs: Vec<Job<O>>,
        retries: Retries,
        timeouts: BatchTimeouts,
        limit: &BatchLimit,
    ) -> Option<Failed<O>> {
        let (jobs, memory) = self.reserve(jobs).await?;
        let is_wanted = || jobs.iter().any(Job::is_wanted);
        let batch = split::Batch::new(&self.database, &is_wanted);
        match batch.attempt::<O>(&items(&jobs), retries, timeouts).await {
            Ok(answers) => {
                self.answer(jobs, answers, memory, limit);
                None
            }
            Err(error) => Some(Failed {
                jobs,
                error,
                timeouts,
            }),
        }
    }

    /// Halves jobs that failed together until the items at fault are alone, and answers all.
    async fn split(&self, failed: Failed<O>, limit: &BatchLimit) {
        let Failed {
            jobs,
            error,
            timeouts,
        } = failed;
        let Some((jobs, memory)) = self.reserve(jobs).await else {
            return;
        };
        let is_wanted = || jobs.iter().any(Job::is_wanted);
        let mut batch = split::Batch::new(&self.database, &is_wanted);
        let answers = batch.split::<O>(&items(&jobs), error, timeouts).await;
        self.answer(jobs, answers, memory, limit);
    }

    /// Reserves the memory of a batch. Drops the jobs whose calls have ended until then; `None` if
    /// these are all.
    async fn reserve(&self, mut jobs: Vec<Job<O>>) -> Option<Reserved<O>> {
        let begun = Instant::now();
        let memory = match O::READS_DOCUMENTS {
            true => self.database.read_memory().reserve().await,
            false => None,
        };
        if memory.is_some() {
            self.database.metrics().waits().memory(begun.elapsed());
        }
        jobs.retain(Job::is_wanted);
        (!jobs.is_empty()).then_some((jobs, memory))
    }

    /// Sends the answers of a batch, with the memory of what it read. Puts the jobs back whose
    /// documents it did not read, and sets the limit of the next batch.
    fn answer(
        &self,
        jobs: Vec<Job<O>>,
        answers: Answers<O::Answer>,
        memory: Option<OwnedSemaphorePermit>,
        limit: &BatchLimit,
    ) {
        let written = jobs.iter().flat_map(|job| &job.items);
        self.database
            .feed()
            .committed(written.filter_map(O::journal));
        let read = answers.iter().flatten().flatten();
        let read = read.map(O::bytes_read).sum();
        let reservation = memory.map(|memory| Reservation::keep(memory, read));
        let held = |answer: Result<_>| {
            let reservation = reservation.clone();
            answer.map(|answer| Held {
                answer,
                reservation,
            })
        };
        let mut answers = answers.into_iter();
        let (mut unread, mut weight) = (Vec::new(), 0);
        for mut job in jobs {
            let (items, before) = (job.items.len(), job.weight());
            job.take(answers.by_ref().take(items).map(|it| it.map(held)));
            weight += before - job.weight();
            match job.is_complete() {
                true => job.reply(),
                false => unread.push(job),
            }
        }
        limit.adapt(weight, unread.is_empty());
        self.queue().put_back(unread);
    }

    /// Runs a batch, and observes its waits and its duration. Items of calls that are cancelled, or
    /// fail their check, are not run. A panic ends the batch, but not the worker.
    async fn measure(&self, jobs: Vec<Job<O>>, run: impl AsyncFnOnce(Vec<Job<O>>)) {
        let jobs: Vec<_> = jobs.into_iter().filter_map(Job::checked).collect();
        if jobs.is_empty() {
            return;
        }
        let begun = Instant::now();
        for job in &jobs {
            let waited = begun.saturating_duration_since(job.queued_at);
            self.metrics.wait_seconds.observe(waited.as_secs_f64());
        }
        let count = jobs.iter().map(Job::slots).sum::<usize>();
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

/// The jobs of a batch, and the memory for what they read.
type Reserved<O> = (Vec<Job<O>>, Option<OwnedSemaphorePermit>);

/// Jobs that failed together.
struct Failed<O: Operation> {
    jobs: Vec<Job<O>>,
    error: DbError,
    /// The timeouts of the batch that failed.
    timeouts: BatchTimeouts,
}

/// A tenant that is apart, until it is dropped.
struct Apart<O: Operation> {
    worker: Arc<Worker<O>>,
    tenant: Arc<str>,
}

impl<O: Operation> Apart<O> {
    /// Runs the jobs of the tenant until it has had no timeout for [`APART_FOR`].
    async fn run(self, failed: Failed<O>, arrived: Arc<Notify>) {
        let worker = &self.worker;
        // The worker has observed these jobs.
        let limit = BatchLimit::default();
        let splitting = worker.split(failed, &limit);
        self.with_permit(splitting).await;
        let mut until = Instant::now() + APART_FOR;
        while Instant::now() < until {
            let jobs = worker.queue().take_apart(&self.tenant, limit.weight());
            if jobs.is_empty() {
                tokio::select! {
                    () = arrived.notified() => continue,
                    () = sleep_until(until) => return,
                    () = worker.closed.cancelled() => return,
                }
            }
            let batch = async |jobs: Vec<_>| {
                let timeouts = BatchTimeouts::Part;
                let attempt = worker.attempt(jobs, Retries::default(), timeouts, &limit);
                if let Some(failed) = attempt.await {
                    let is_timeout = failed.error.is_timeout();
                    worker.split(failed, &limit).await;
                    if is_timeout {
                        until = Instant::now() + APART_FOR;
                    }
                }
            };
            self.with_permit(worker.measure(jobs, batch)).await;
        }
    }

    /// Runs work that needs a connection. All tenants apart together leave most of them to others.
    async fn with_permit(&self, work: impl Future<Output = ()>) {
        let _permit = self.worker.database.apart_permit().await;
        let panics = self.worker.database.metrics().panics();
        contain(O::NAME, panics, work).await;
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

/// Splits jobs by tenant.
fn by_tenant<O: Operation>(mut jobs: Vec<Job<O>>) -> Vec<Vec<Job<O>>> {
    // Sorting is stable, so the jobs of a tenant stay in their order.
    jobs.sort_by(|a, b| a.tenant().cmp(b.tenant()));
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
