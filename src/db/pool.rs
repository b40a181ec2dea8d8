//! The connection pools: one for batches, one for queries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use diesel_async::AsyncPgConnection;
use tokio::{
    runtime::Handle,
    sync::{RwLock, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{
    DbError,
    address::DatabaseAddress,
    batch::{
        queue_time::QueueTime,
        reservation::{Held, ReadMemory, Reservation},
        weights::Weights,
    },
    connection::{LastFailure, Manager},
    feed::Feed,
    lease::{LEASE_TIMEOUT, Lease},
    outage::OutageDetector,
    planner::{BATCH_SETTINGS, BatchTimeouts, QUERY_SETTINGS},
    query::{Owner, Query},
    retry::Retries,
    turns::{TURN_TIMEOUT, Turn, Turns},
};
use crate::{
    domain::error::Result,
    ops::metrics::{Metrics, PoolMetrics},
};

/// The timeout of one try of a batch. PostgreSQL ends its statements earlier, see
/// [`BatchTimeouts`]. So a batch that takes longer has several slow statements, or waits for a
/// dead connection.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A quarter of the connections serve queries of tenants. With 4 or more, one further connection
/// serves the service itself and operators. The rest serve batches.
const QUERIES_SHARE: u32 = 4;

/// A handle to the database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    /// For batches, so that writes do not wait for slow lists.
    batches: Pool,
    /// For queries of a single caller.
    queries: Pool,
    /// The turns on the connections for queries.
    turns: Turns,
    /// Whether the schema is current.
    is_ready: Arc<AtomicBool>,
    outage: OutageDetector,
    /// For batches of tenants apart, a part of the connections for batches.
    apart: Arc<Semaphore>,
    read_memory: ReadMemory,
    queue_time: QueueTime,
    feed: Feed,
    /// The shares of tenants in batches.
    weights: Weights,
    /// Every running batch holds a read lock.
    running: Arc<RwLock<()>>,
    metrics: Metrics,
}

impl Database {
    /// Creates both pools, with at least one connection each and at most `max_connections`
    /// together. Connects on demand. The current tokio runtime drives the connections.
    #[must_use]
    pub fn new(address: &DatabaseAddress, max_connections: u32, metrics: &Metrics) -> Self {
        let kept = u32::from(max_connections >= QUERIES_SHARE);
        let queries = (max_connections / QUERIES_SHARE).max(1) + kept;
        let batches = max_connections.saturating_sub(queries).max(1);
        let outage = OutageDetector::default();
        let pool = |name, size, setup| {
            let metrics = metrics.database().pool(name, size);
            Pool::new(address, size, setup, metrics, outage.clone())
        };
        let database = Database {
            batches: pool("batches", batches, BATCH_SETTINGS),
            queries: pool("queries", queries, QUERY_SETTINGS),
            turns: Turns::new(queries),
            is_ready: Arc::new(AtomicBool::new(false)),
            outage: outage.clone(),
            apart: Arc::new(Semaphore::new(apart_connections(batches))),
            read_memory: ReadMemory::default(),
            queue_time: QueueTime::default(),
            feed: Feed::default(),
            weights: Weights::default(),
            running: Arc::default(),
            metrics: metrics.clone(),
        };
        database.measure_waits();
        for pool in [&database.batches, &database.queries] {
            let pool = pool.clone();
            metrics.on_scrape(move || pool.metrics.set(&pool.connections.state()));
        }
        database
    }

    fn measure_waits(&self) {
        let (turns, memory) = (self.turns.clone(), self.read_memory.clone());
        let waits = self.metrics.waits().clone();
        self.metrics.on_scrape(move || {
            let (running, waiting, owners) = turns.load();
            waits.set_queries(running, waiting, owners);
            waits.set_memory(memory.reserved_bytes());
        });
    }

    /// Waits for one of the few connections that batches of tenants apart may use at a time.
    pub(super) async fn apart_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.apart.acquire().await.ok()
    }

    /// Returns the memory for the rows that batches read.
    pub(super) fn read_memory(&self) -> &ReadMemory {
        &self.read_memory
    }

    /// Returns how long calls wait for their batches.
    #[must_use]
    pub fn queue_time(&self) -> &QueueTime {
        &self.queue_time
    }

    /// Returns the feed of the journal.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Returns the shares of tenants in batches.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the metrics of the service.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns whether there is no connection for batches. An idle service may have none for queries.
    #[must_use]
    pub fn lacks_connections(&self) -> bool {
        self.batches.connections.state().connections == 0
    }

    /// Marks the schema as current. Until then all work fails with [`DbError::NotReady`].
    pub fn mark_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// Returns the outage detector.
    #[must_use]
    pub fn outage(&self) -> &OutageDetector {
        &self.outage
    }

    /// Waits until no batch runs, including batches of cancelled calls.
    pub async fn wait_idle(&self) {
        drop(self.running.write().await);
    }

    /// Runs a query on a connection of its own, when its turn comes. Retries if the connection is
    /// lost.
    ///
    /// # Errors
    /// Errors of the query, and the last database error.
    pub async fn run<Q: Query>(&self, query: &Q) -> Result<Q::Answer> {
        self.run_held(query).await.map(|held| held.answer)
    }

    /// Runs a query as [`Database::run`] does. Its turn goes on until the response is encoded,
    /// because the answer takes memory and time until then.
    ///
    /// # Errors
    /// As those of [`Database::run`].
    pub async fn run_held<Q: Query>(&self, query: &Q) -> Result<Held<Q::Answer>> {
        self.run_for(query.owner(), query).await
    }

    /// Runs a query in the turn of an owner, as [`Database::run_held`] does.
    ///
    /// # Errors
    /// As those of [`Database::run`].
    pub async fn run_for<Q: Query>(&self, owner: Owner, query: &Q) -> Result<Held<Q::Answer>> {
        let answer = self.run_with_retries(&owner, query);
        self.outage.or_outage(answer).await
    }

    async fn run_with_retries<Q: Query>(
        &self,
        owner: &Owner,
        query: &Q,
    ) -> Result<Held<Q::Answer>> {
        let mut retries = match query.retries_transient() {
            true => Retries::default(),
            false => Retries::spent(),
        };
        loop {
            let error = match self.try_run(owner, query).await {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            match retries.pause_after(&error) {
                Some(pause) if query.may_run_again() => self.pause(&error, pause).await,
                _ => return Err(error.into()),
            }
        }
    }

    /// Counts a retry, and waits for `pause`.
    pub(super) async fn pause(&self, error: &DbError, pause: Duration) {
        let retries = &self.metrics.database().retries;
        retries.with_label_values(&[error.retry_cause()]).inc();
        tokio::time::sleep(pause).await;
    }

    async fn try_run<Q: Query>(
        &self,
        owner: &Owner,
        query: &Q,
    ) -> Result<Result<Held<Q::Answer>>, DbError> {
        let turn = self.turn(owner, query.deadline()).await?;
        let mut lease = self.lease(&self.queries).await?;
        lease.in_turn(&turn);
        let result = query.run(&mut lease.connection).await;
        match &result {
            // A dropped lease reads the rest, or cancels the statement.
            Ok(Ok(answer)) if Q::leaves_rows(answer) => drop(lease),
            _ => self.end(lease, &result),
        }
        let hold = |answer| Held {
            answer,
            reservation: Some(Reservation::Query(turn)),
        };
        result.map(|answer| answer.map(hold))
    }

    /// Waits for the turn of a query.
    async fn turn(
        &self,
        owner: &Owner,
        deadline: Option<StdInstant>,
    ) -> Result<Arc<Turn>, DbError> {
        let begun = Instant::now();
        let turn = self
            .turns
            .acquire(owner.clone(), deadline.map(Instant::from_std));
        let turn = turn.await;
        let wait = begun.elapsed();
        self.metrics.waits().query(wait);
        match turn {
            Ok(turn) => Ok(Arc::new(turn)),
            // It waited, or others of its owner have for as long.
            Err(error) => {
                let since = begun.checked_sub(TURN_TIMEOUT.saturating_sub(wait));
                Err(self.late_or_outage(since.unwrap_or(begun), error))
            }
        }
    }

    /// Runs one try of a batch. `leaves_rows` tells whether its result left rows unread.
    ///
    /// # Errors
    /// Errors of the batch; [`DbError::LockTimeout`] and [`DbError::StatementTimeout`] after
    /// `timeouts`; [`DbError::TimedOut`] after 10 s, or [`DbError::Outage`] if the database
    /// answered nothing meanwhile.
    pub(super) async fn try_batch<T>(
        &self,
        timeouts: BatchTimeouts,
        batch: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, DbError>,
        leaves_rows: impl FnOnce(&T) -> bool,
    ) -> Result<T, DbError> {
        let _running = self.running.read().await;
        let mut lease = self.lease(&self.batches).await?;
        let begun = Instant::now();
        let result = timeout(BATCH_TIMEOUT, async {
            lease.set_timeouts(timeouts).await?;
            lease.discard_old_plans().await?;
            batch(&mut lease.connection).await
        });
        match result.await {
            // A dropped lease reads the rest, or cancels the statement.
            Ok(Ok(answers)) if leaves_rows(&answers) => Ok(answers),
            Ok(result) => {
                self.end(lease, &result);
                result
            }
            // Dropping the lease cancels the statement.
            Err(_) => Err(self.late_or_outage(begun, DbError::TimedOut)),
        }
    }

    /// Returns the connection to its pool, or closes it if `result` says that it may be dead.
    fn end<T>(&self, lease: Lease, result: &Result<T, DbError>) {
        match result {
            Err(error) if error.may_end_connection() => {
                if error.is_unavailable() {
                    self.outage.note_failure();
                }
                lease.close();
            }
            _ => {
                self.outage.mark_over();
                lease.give_back();
            }
        }
    }

    async fn lease(&self, pool: &Pool) -> Result<Lease, DbError> {
        if !self.is_ready.load(Ordering::Acquire) {
            return Err(DbError::NotReady);
        }
        let begun = Instant::now();
        let lease = pool.lease().await;
        lease.map_err(|error| self.late_or_outage(begun, error))
    }

    /// Returns the error of a wait for a connection, or for a batch, that began at a time. If the
    /// database answered nothing meanwhile, it is not busy or slow, but stuck in an outage.
    /// Connections are not busy either if it was unavailable for a part of the time.
    fn late_or_outage(&self, begun: Instant, error: DbError) -> DbError {
        let is_stuck = !self.outage.has_answered_since(begun);
        match error {
            DbError::Busy if is_stuck || self.outage.has_failed_since(begun) => DbError::Outage,
            DbError::TimedOut if is_stuck => DbError::Outage,
            other => other,
        }
    }
}

/// Returns how many of the connections for batches those of tenants apart may use: a quarter, but
/// at least one, and at most four. They hold their memory for reads while they wait for locks.
fn apart_connections(batches: u32) -> usize {
    usize::try_from((batches / 4).clamp(1, 4)).unwrap_or(1)
}

/// A pool of connections with the same settings.
#[derive(Clone)]
struct Pool {
    connections: bb8::Pool<Manager>,
    last_failure: LastFailure,
    metrics: PoolMetrics,
}

impl Pool {
    fn new(
        address: &DatabaseAddress,
        max_size: u32,
        setup: &'static str,
        metrics: PoolMetrics,
        outage: OutageDetector,
    ) -> Self {
        let last_failure = LastFailure::new(outage);
        let connections = bb8::Pool::builder()
            .max_size(max_size)
            .connection_timeout(LEASE_TIMEOUT)
            .error_sink(Box::new(last_failure.clone()))
            .build_unchecked(Manager {
                address: address.clone(),
                setup,
                metrics: metrics.clone(),
                runtime: Handle::current(),
            });
        Pool {
            connections,
            last_failure,
            metrics,
        }
    }

    /// Leases a connection. Waits for at most 1 s.
    async fn lease(&self) -> Result<Lease, DbError> {
        match self.connections.get_owned().await {
            Ok(connection) => Ok(Lease::begin(connection)),
            Err(bb8::RunError::TimedOut) if self.is_exhausted() => Err(DbError::Busy),
            Err(bb8::RunError::TimedOut) => Err(DbError::NoConnection(self.last_failure.take())),
            Err(bb8::RunError::User(error)) => Err(error.into()),
        }
    }

    /// Returns whether connections exist, and all are in use.
    fn is_exhausted(&self) -> bool {
        let state = self.connections.state();
        state.idle_connections == 0 && state.connections > 0
    }
}
