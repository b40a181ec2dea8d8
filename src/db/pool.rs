//! The connections to PostgreSQL.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::ConnectionError;
use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::PoolableConnection,
};
use tokio::time::timeout;

use super::{DbError, retry::Retries};
use crate::error::Result;

/// How long a connection may take to be made, and how long a caller waits for
/// one; a server that is there answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one try of a batch may take. The largest takes a second or two; what
/// takes longer waits for a link that is dead without saying so.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// When to give up on a link over which nothing is acknowledged, in seconds, and
/// after how long a silence to ask whether it is still there. The operating
/// system's own answer is two hours.
const LINK_SETTINGS: [&str; 2] = ["tcp_user_timeout=10", "keepalives_idle=30"];

/// Of so many connections one is for queries, the others are for batches.
const QUERIES_SHARE: u32 = 4;

/// How PostgreSQL is to plan batches, all of which look rows up by key.
///
/// It can't know how many items an array is going to have, takes that for a
/// reason to plan such statements anew every time, and spends more on the plan
/// than on the work. So it keeps the plans. But a plan that was made while a table
/// was small may read all of it, so only indexes are allowed; and it may read all
/// of a wrong index, so plans are kept for [`PLANS_LAST`], and statements leave it
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

/// For how long plans of batches are kept; planning all of them takes milliseconds.
const PLANS_LAST: Duration = Duration::from_secs(10);

/// Something that is read with a connection of its own.
pub trait Query: Sync {
    /// What comes of it.
    type Answer: Send;

    /// Runs the query; an error of the database may be followed by another run.
    fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send;

    /// Whether rows were left unread, so that the connection is of no more use.
    fn leaves_rows(_answer: &Self::Answer) -> bool {
        false
    }
}

/// The database, as everyone who reads or writes gets it. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    /// For batches, so that slow lists do not keep writes waiting.
    batches: Pool,
    /// For queries of a single caller.
    queries: Pool,
    /// Whether the schema is known to be what this version needs.
    is_open: Arc<AtomicBool>,
}

type Pool = bb8::Pool<Manager>;

impl Database {
    /// Makes pools of at most `max_connections` together, and at least one
    /// each; connects when it has to.
    #[must_use]
    pub fn new(url: &str, max_connections: u32) -> Self {
        let queries = (max_connections / QUERIES_SHARE).max(1);
        let batches = max_connections.saturating_sub(queries).max(1);
        Database {
            batches: pool(url, batches, BATCH_PLANS),
            queries: pool(url, queries, QUERY_PLANS_AND_LIMITS),
            is_open: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Lets connections out. Until this is called, once the schema is current,
    /// the database is as good as away.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// Runs a query on a connection of its own, again if the connection is lost.
    ///
    /// # Errors
    /// What the query answers, and what the database fails with in the end.
    pub async fn read<Q: Query>(&self, query: &Q) -> Result<Q::Answer> {
        let mut retries = Retries::default();
        loop {
            match self.try_read(query).await {
                Ok(answer) => return answer,
                Err(error) => match retries.pause_after(&error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error.into()),
                },
            }
        }
    }

    async fn try_read<Q: Query>(&self, query: &Q) -> Result<Result<Q::Answer>, DbError> {
        let mut lease = self.lease(&self.queries).await?;
        lease.is_busy = true;
        let result = query.run(&mut lease.connection).await;
        lease.is_busy = match &result {
            Ok(Ok(answer)) => Q::leaves_rows(answer),
            Ok(Err(_)) => false,
            Err(error) => error.is_unavailable(),
        };
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
        let mut lease = self.lease(&self.batches).await?;
        lease.is_busy = true;
        let result = timeout(BATCH_TIMEOUT, async {
            lease.forget_old_plans().await?;
            batch(&mut lease.connection).await
        });
        let result = result.await;
        let result = result.unwrap_or(Err(DbError::TimedOut));
        lease.is_busy = result.as_ref().is_err_and(DbError::is_unavailable);
        result
    }

    async fn lease<'a>(
        &self,
        pool: &'a Pool,
    ) -> Result<bb8::PooledConnection<'a, Manager>, DbError> {
        if !self.is_open.load(Ordering::Acquire) {
            return Err(DbError::NotOpen);
        }
        match pool.get().await {
            Err(bb8::RunError::TimedOut) if is_exhausted(pool) => Err(DbError::Busy),
            lease => Ok(lease?),
        }
    }
}

/// Whether as many connections are there as may be, and all at work.
fn is_exhausted(pool: &Pool) -> bool {
    let state = pool.state();
    state.idle_connections == 0 && state.connections > 0
}

/// A connection, and whether something may still be under way on it.
struct Link {
    connection: AsyncPgConnection,
    /// Set before work and cleared after: where the work was dropped in the
    /// middle, or left something unread, the connection is not used again.
    is_busy: bool,
    /// Since when its plans are kept.
    planned_at: Instant,
}

impl Link {
    async fn forget_old_plans(&mut self) -> Result<(), DbError> {
        if self.planned_at.elapsed() > PLANS_LAST {
            self.connection.batch_execute("DISCARD PLANS").await?;
            self.planned_at = Instant::now();
        }
        Ok(())
    }
}

struct Manager {
    url: String,
    setup: &'static str,
}

impl bb8::ManageConnection for Manager {
    type Connection = Link;
    type Error = ConnectionError;

    async fn connect(&self) -> Result<Link, ConnectionError> {
        let connection = timeout(CONNECT_TIMEOUT, connect(&self.url, self.setup)).await;
        let connection = connection.unwrap_or_else(|_| {
            Err(ConnectionError::BadConnection(
                "no answer in time".to_owned(),
            ))
        })?;
        Ok(Link {
            connection,
            is_busy: false,
            planned_at: Instant::now(),
        })
    }

    /// Costs no round trip, which would prove nothing about the moment after: a
    /// connection that is known to be closed is not handed out, and one that
    /// dies later is retried.
    async fn is_valid(&self, link: &mut Link) -> Result<(), ConnectionError> {
        match self.has_broken(link) {
            true => Err(ConnectionError::BadConnection("it is closed".to_owned())),
            false => Ok(()),
        }
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_busy || link.connection.is_broken()
    }
}

fn pool(url: &str, max_size: u32, setup: &'static str) -> Pool {
    let manager = Manager {
        url: with_link_settings(url),
        setup,
    };
    bb8::Pool::builder()
        .max_size(max_size)
        .connection_timeout(CONNECT_TIMEOUT)
        .build_unchecked(manager)
}

async fn connect(url: &str, setup: &str) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    let done = connection.batch_execute(setup).await;
    done.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// Adds our settings to a URL that does not have its own.
fn with_link_settings(url: &str) -> String {
    let mut url = url.to_owned();
    for setting in LINK_SETTINGS {
        let name = setting.split('=').next().unwrap_or_default();
        if !url.contains(name) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(setting);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_its_own_link_settings() {
        assert_eq!(
            with_link_settings("postgres://a@b/c"),
            "postgres://a@b/c?tcp_user_timeout=10&keepalives_idle=30"
        );
        assert_eq!(
            with_link_settings("postgres://a@b/c?keepalives_idle=5"),
            "postgres://a@b/c?keepalives_idle=5&tcp_user_timeout=10"
        );
    }
}
