//! The connections of a pool.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::PoolableConnection,
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    DbError,
    address::DatabaseAddress,
    connect::{CONNECT_TIMEOUT, Canceller, Driver, open_primary, set_up},
    instrumentation::StatementObserver,
    outage::OutageDetector,
    planner::{BatchTimeouts, PLAN_LIFETIME},
};
use crate::ops::metrics::PoolMetrics;

/// A pooled connection.
pub(super) struct Connection {
    pub(super) connection: AsyncPgConnection,
    /// Cancels its statements.
    pub(super) canceller: Canceller,
    _driver: Driver,
    /// Set while a lease uses the connection. If it is still set afterwards, a statement may
    /// still run on the connection, which is then closed.
    pub(super) is_busy: bool,
    /// When plans were last discarded.
    planned_at: Instant,
    /// The timeouts of the session; `None` until a batch sets them.
    timeouts: Option<BatchTimeouts>,
}

impl Connection {
    /// Discards plans that are older than [`PLAN_LIFETIME`].
    pub(super) async fn discard_old_plans(&mut self) -> Result<(), DbError> {
        if self.planned_at.elapsed() > PLAN_LIFETIME {
            self.connection.batch_execute("DISCARD PLANS").await?;
            self.planned_at = Instant::now();
        }
        Ok(())
    }

    /// Sets the timeouts of the session, unless it has them.
    pub(super) async fn set_timeouts(&mut self, timeouts: BatchTimeouts) -> Result<(), DbError> {
        if self.timeouts != Some(timeouts) {
            // A failure may leave one of them set.
            self.timeouts = None;
            self.connection.batch_execute(timeouts.settings()).await?;
            self.timeouts = Some(timeouts);
        }
        Ok(())
    }
}

/// Creates the connections of a pool.
pub(super) struct Manager {
    pub(super) address: DatabaseAddress,
    /// The settings of the session, as SQL.
    pub(super) setup: &'static str,
    pub(super) metrics: PoolMetrics,
    /// The runtime that drives the connections, wherever the call runs that needs one.
    pub(super) runtime: Handle,
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = ConnectionError;

    async fn connect(&self) -> ConnectionResult<Connection> {
        let address = self.address.clone();
        let connected = self
            .runtime
            .spawn(async move { open_primary(&address).await });
        let connected = connected
            .await
            .map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
        let opened = connected?;
        let mut connection = set_up(opened.client).await?;
        let setup = timeout(CONNECT_TIMEOUT, connection.batch_execute(self.setup)).await;
        setup
            .map_err(|_| ConnectionError::BadConnection("session setup timed out".to_owned()))?
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        let observer = StatementObserver::new(self.metrics.clone());
        connection.set_instrumentation(observer);
        Ok(Connection {
            connection,
            canceller: opened.canceller,
            _driver: opened.driver,
            is_busy: false,
            planned_at: Instant::now(),
            timeouts: None,
        })
    }

    /// Checks without a round trip, because the connection may fail right after the check.
    /// Work on a connection that dies later is retried.
    async fn is_valid(&self, connection: &mut Connection) -> ConnectionResult<()> {
        match self.has_broken(connection) {
            true => Err(ConnectionError::BadConnection(
                "the connection is closed".to_owned(),
            )),
            false => Ok(()),
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_busy || connection.connection.is_broken()
    }
}

/// The last error of connecting. bb8 itself reports only that no connection became available
/// in time.
#[derive(Debug, Clone)]
pub(super) struct LastFailure {
    error: Arc<Mutex<Option<Arc<ConnectionError>>>>,
    outage: OutageDetector,
}

impl LastFailure {
    /// Tells `outage` of each error.
    pub(super) fn new(outage: OutageDetector) -> Self {
        LastFailure {
            error: Arc::default(),
            outage,
        }
    }

    /// Removes and returns the last error.
    pub(super) fn take(&self) -> Option<Arc<ConnectionError>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<ConnectionError>>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl bb8::ErrorSink<ConnectionError> for LastFailure {
    fn sink(&self, error: ConnectionError) {
        self.outage.note_failure();
        *self.lock() = Some(Arc::new(error));
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ConnectionError>> {
        Box::new(self.clone())
    }
}
