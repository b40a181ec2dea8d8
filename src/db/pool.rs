//! The connections to PostgreSQL.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel_async::AsyncPgConnection;
use tokio::{sync::RwLock, time::timeout};

use super::{
    DbError,
    connection::{LastFailure, Manager},
    lease::Lease,
    outage::OutageDetector,
    retry::Retries,
    tenant_quota::TenantQuota,
};
use crate::domain::namespace::{Namespace, Scoped};
use crate::{
    domain::error::Result,
    ops::metrics::{Metrics, PoolMetrics},
};

/// How long a caller waits for a connection.
pub(super) const LEASE_PATIENCE: Duration = Duration::from_secs(1);

/// How long one try of a batch may take. The largest takes a second or two; what
/// takes longer waits for a link that is dead without saying so.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Of so many connections one is for queries, the others are for batches.
const QUERIES_SHARE: u32 = 4;

/// How PostgreSQL is to plan batches, all of which look rows up by key.
///
/// It can't know how many items an array is going to have, takes that for a
/// reason to plan such statements anew every time, and spends more on the plan
/// than on the work. So it keeps the plans. But a plan that was made while a table
/// was small may read all of it, so only indexes are allowed; and it may read all
/// of a wrong index, so plans are kept for ten seconds, and statements leave it
/// no choice of index, see docs/ARCHITECTURE.md.
const BATCH_PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
     SET enable_hashjoin = off; SET enable_mergejoin = off";

/// What holds for queries of a single caller.
///
/// They are planned anew every time: which index is best depends on what is asked
/// for. A plan for anything would read all moves of an entity for each page, because
/// most entities have few.
///
/// Nobody waits for a query for longer than the limit, so PostgreSQL need not go on
/// with it either: it looks every so often whether we are still there.
const QUERY_PLANS_AND_LIMITS: &str = "SET plan_cache_mode = force_custom_plan;
     SET statement_timeout = '60s'; SET client_connection_check_interval = '2s'";

/// A statement, or a few, of one caller on a connection of its own.
pub trait Query: Sync {
    /// What it returns.
    type Answer: Send;

    /// Returns the tenant whose quota of connections the query counts against; `None` for
    /// the service's own queries and for those of operators.
    fn tenant(&self) -> Option<&Namespace> {
        None
    }

    /// Runs the query. An error of the database may be followed by another run.
    fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send;

    /// Whether an answer left rows unread on the connection.
    fn leaves_rows(_answer: &Self::Answer) -> bool {
        false
    }
}

/// A query of a tenant: [`Query`] for [`Scoped`] values, which name the tenant.
pub trait TenantQuery: Send + Sync + Sized {
    /// What it returns.
    type Answer: Send;

    /// Runs the query, see [`Query::run`].
    fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send;

    /// Whether an answer left rows unread on the connection.
    fn leaves_rows(_answer: &Self::Answer) -> bool {
        false
    }
}

impl<T: TenantQuery> Query for Scoped<T> {
    type Answer = T::Answer;

    fn tenant(&self) -> Option<&Namespace> {
        Some(&self.namespace)
    }

    fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send {
        T::run(self, connection)
    }

    fn leaves_rows(answer: &Self::Answer) -> bool {
        T::leaves_rows(answer)
    }
}

/// The database, as everyone who reads or writes gets it. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    /// For batches, so that slow lists do not keep writes waiting.
    batches: Pool,
    /// For queries of a single caller.
    queries: Pool,
    /// How many of those a tenant may have.
    quota: TenantQuota,
    /// Whether the schema is known to be what this version needs.
    is_ready: Arc<AtomicBool>,
    /// Since when nothing is heard of it.
    outage: OutageDetector,
    /// Read by every batch while it runs.
    at_work: Arc<RwLock<()>>,
    metrics: Metrics,
}

impl Database {
    /// Makes pools of at most `max_connections` together, and at least one
    /// each; connects when it has to.
    #[must_use]
    pub fn new(url: &str, max_connections: u32, metrics: &Metrics) -> Self {
        let queries = (max_connections / QUERIES_SHARE).max(1);
        let batches = max_connections.saturating_sub(queries).max(1);
        let pool = |name, size, setup| {
            let metrics = metrics.database().pool(name, size);
            Pool::new(url, size, setup, metrics)
        };
        let database = Database {
            batches: pool("batches", batches, BATCH_PLANS),
            queries: pool("queries", queries, QUERY_PLANS_AND_LIMITS),
            quota: TenantQuota::new(queries),
            is_ready: Arc::new(AtomicBool::new(false)),
            outage: OutageDetector::default(),
            at_work: Arc::default(),
            metrics: metrics.clone(),
        };
        for pool in [&database.batches, &database.queries] {
            let pool = pool.clone();
            metrics.on_scrape(move || pool.metrics.set(&pool.connections.state()));
        }
        database
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Lets connections out. Until this is called, once the schema is current,
    /// the database is as good as away.
    pub fn mark_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// What is known of the database being away.
    #[must_use]
    pub fn outage(&self) -> &OutageDetector {
        &self.outage
    }

    /// Waits until no batch is at work: those, too, whose callers went away.
    pub async fn wait_idle(&self) {
        drop(self.at_work.write().await);
    }

    /// Runs a query on a connection of its own, again if the connection is lost.
    ///
    /// # Errors
    /// What the query answers, and what the database fails with in the end.
    pub async fn run<Q: Query>(&self, query: &Q) -> Result<Q::Answer> {
        self.outage.or_outage(self.run_with_retries(query)).await
    }

    async fn run_with_retries<Q: Query>(&self, query: &Q) -> Result<Q::Answer> {
        let mut retries = Retries::default();
        loop {
            match self.try_run(query).await {
                Ok(answer) => return answer,
                Err(error) => match retries.pause_after(&error) {
                    Some(pause) => self.pause(&error, pause).await,
                    None => return Err(error.into()),
                },
            }
        }
    }

    /// Waits before what failed is tried again.
    pub(super) async fn pause(&self, error: &DbError, pause: Duration) {
        let retries = &self.metrics.database().retries;
        retries.with_label_values(&[error.retry_cause()]).inc();
        tokio::time::sleep(pause).await;
    }

    async fn try_run<Q: Query>(&self, query: &Q) -> Result<Result<Q::Answer>, DbError> {
        let _share = match query.tenant() {
            Some(namespace) => Some(self.quota.acquire(namespace.as_str()).await?),
            None => None,
        };
        let mut lease = self.lease(&self.queries).await?;
        let result = query.run(&mut lease.connection).await;
        match &result {
            // Dropped, it is read to its end, or cancelled.
            Ok(Ok(answer)) if Q::leaves_rows(answer) => drop(lease),
            _ => self.end(lease, &result),
        }
        result
    }

    /// Runs one try of a batch.
    ///
    /// # Errors
    /// What it fails with; [`DbError::TimedOut`] after 10 s.
    pub(super) async fn try_batch<T>(
        &self,
        batch: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let _at_work = self.at_work.read().await;
        let mut lease = self.lease(&self.batches).await?;
        let result = timeout(BATCH_TIMEOUT, async {
            lease.forget_old_plans().await?;
            batch(&mut lease.connection).await
        });
        match result.await {
            Ok(result) => {
                self.end(lease, &result);
                result
            }
            // The lease, dropped, has PostgreSQL cancel it.
            Err(_) => Err(DbError::TimedOut),
        }
    }

    /// Ends the work on a connection, which gave this result.
    fn end<T>(&self, lease: Lease, result: &Result<T, DbError>) {
        match result {
            Err(error) if error.may_end_connection() => lease.close(),
            _ => {
                self.outage.mark_over();
                lease.give_back();
            }
        }
    }

    async fn lease(&self, pool: &Pool) -> Result<Lease, DbError> {
        match self.is_ready.load(Ordering::Acquire) {
            true => pool.lease().await,
            false => Err(DbError::NotReady),
        }
    }
}

/// Connections with the same settings.
#[derive(Clone)]
struct Pool {
    connections: bb8::Pool<Manager>,
    last_failure: LastFailure,
    metrics: PoolMetrics,
}

impl Pool {
    fn new(url: &str, max_size: u32, setup: &'static str, metrics: PoolMetrics) -> Self {
        let last_failure = LastFailure::default();
        let connections = bb8::Pool::builder()
            .max_size(max_size)
            .connection_timeout(LEASE_PATIENCE)
            .error_sink(Box::new(last_failure.clone()))
            .build_unchecked(Manager {
                url: url.to_owned(),
                setup,
                metrics: metrics.clone(),
            });
        Pool {
            connections,
            last_failure,
            metrics,
        }
    }

    /// A connection for one piece of work, for which a caller waits for at most 1 s.
    async fn lease(&self) -> Result<Lease, DbError> {
        match self.connections.get_owned().await {
            Ok(connection) => Ok(Lease::begin(connection)),
            Err(bb8::RunError::TimedOut) if self.is_exhausted() => Err(DbError::Busy),
            Err(bb8::RunError::TimedOut) => Err(DbError::NoConnection(self.last_failure.take())),
            Err(bb8::RunError::User(error)) => Err(error.into()),
        }
    }

    /// Whether as many connections are there as may be, and all at work.
    fn is_exhausted(&self) -> bool {
        let state = self.connections.state();
        state.idle_connections == 0 && state.connections > 0
    }
}
