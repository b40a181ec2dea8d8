//! The connections to PostgreSQL.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8},
};

use super::{DbError, retry::Retries};
use crate::error::Result;

/// How long a connection may take to be made; a server that is there answers
/// in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection of the pool.
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
    pool: bb8::Pool<AsyncPgConnection>,
    /// Whether the schema is known to be what this version needs.
    is_open: Arc<AtomicBool>,
}

impl Database {
    /// Makes a pool of at most `max_connections`; connects when it has to.
    #[must_use]
    pub fn new(url: &str, max_connections: u32) -> Self {
        let mut config = ManagerConfig::default();
        // A test query per checkout would cost every read a round trip, and
        // would prove nothing about the moment after. A connection that is
        // known to be closed is not handed out; one that dies is retried.
        config.recycling_method = RecyclingMethod::Fast;
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = bb8::Pool::builder()
            .max_size(max_connections)
            .connection_timeout(CONNECT_TIMEOUT)
            .test_on_check_out(false)
            .build_unchecked(manager);
        Database {
            pool,
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
            let attempt = async { query.run(&mut *self.connection().await?).await };
            match attempt.await {
                Ok(answer) => return answer,
                Err(error) => match retries.pause_after(&error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error.into()),
                },
            }
        }
    }

    /// Gets a connection.
    ///
    /// # Errors
    /// [`DbError::NoConnection`] if there is none within 1 s, and
    /// [`DbError::NotOpen`].
    pub async fn connection(&self) -> Result<Connection<'_>, DbError> {
        if !self.is_open.load(Ordering::Acquire) {
            return Err(DbError::NotOpen);
        }
        Ok(self.pool.get().await?)
    }
}
