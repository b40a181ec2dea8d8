//! The connections to PostgreSQL.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8},
};

use super::{DbError, retry::Retries};
use crate::error::Result;

/// How long a connection may take to be made; a server that is there answers
/// in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Of so many connections one is for queries, the others are for batches.
const QUERIES_SHARE: u32 = 4;

/// PostgreSQL can't know how many items an array is going to have, takes that
/// for a reason to plan such statements anew every time, and spends more on the
/// plan than on the work. They are written so that any plan is the right one.
const GENERIC_PLANS: &str = "SET plan_cache_mode = force_generic_plan";

/// A connection of a pool.
pub type Connection<'a> = bb8::PooledConnection<'a, AsyncPgConnection>;

/// Something that is read with a connection of its own.
pub trait Query: Sync {
    /// What comes of it.
    type Answer: Send;

    /// Runs the query; an error of the database may be followed by another run.
    fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send;
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

type Pool = bb8::Pool<AsyncPgConnection>;

impl Database {
    /// Makes pools of at most `max_connections` together, and at least one
    /// each; connects when it has to.
    #[must_use]
    pub fn new(url: &str, max_connections: u32) -> Self {
        let queries = (max_connections / QUERIES_SHARE).max(1);
        let batches = max_connections.saturating_sub(queries).max(1);
        Database {
            batches: pool(url, batches, Some(GENERIC_PLANS)),
            queries: pool(url, queries, None),
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
            let attempt = async { query.run(&mut *self.connection(&self.queries).await?).await };
            match attempt.await {
                Ok(answer) => return answer,
                Err(error) => match retries.pause_after(&error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error.into()),
                },
            }
        }
    }

    /// Gets a connection for a batch.
    ///
    /// # Errors
    /// [`DbError::NoConnection`] if there is none within 1 s, and
    /// [`DbError::NotOpen`].
    pub async fn for_batch(&self) -> Result<Connection<'_>, DbError> {
        self.connection(&self.batches).await
    }

    async fn connection<'a>(&self, pool: &'a Pool) -> Result<Connection<'a>, DbError> {
        if !self.is_open.load(Ordering::Acquire) {
            return Err(DbError::NotOpen);
        }
        Ok(pool.get().await?)
    }
}

fn pool(url: &str, max_size: u32, setup: Option<&'static str>) -> Pool {
    let mut config = ManagerConfig::default();
    // A test query per checkout would cost every read a round trip, and would
    // prove nothing about the moment after. A connection that is known to be
    // closed is not handed out; one that dies is retried.
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(move |url| Box::pin(connect(url, setup)));
    bb8::Pool::builder()
        .max_size(max_size)
        .connection_timeout(CONNECT_TIMEOUT)
        .test_on_check_out(false)
        .build_unchecked(AsyncDieselConnectionManager::new_with_config(url, config))
}

async fn connect(url: &str, setup: Option<&str>) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    if let Some(setup) = setup {
        let done = connection.batch_execute(setup).await;
        done.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    }
    Ok(connection)
}
