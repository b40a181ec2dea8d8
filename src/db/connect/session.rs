//! Connections outside of a pool, and the tasks that drive connections.

use std::{
    convert::Infallible,
    ops::{Deref, DerefMut},
    pin::pin,
    time::Duration,
};

use diesel_async::AsyncPgConnection;
use tokio::{io::AsyncRead, io::AsyncWrite, sync::oneshot, time::timeout};
use tokio_postgres::Connection;

use crate::util::error_chain::error_chain;

/// How long a connection that is dropped may wait for the server, to end in order. A connection that is
/// idle only sends its last message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Drives a connection. If it is dropped, the connection ends, also if a statement still runs.
pub struct Driver {
    _stop: oneshot::Sender<Infallible>,
}

impl Driver {
    /// Starts a task that drives a connection.
    pub(super) fn start<S, T>(connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let end = tokio::select! {
                end = &mut connection => end,
                _ = stopped => timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(())),
            };
            // Statements that run at that moment get the same error. Later ones find the connection closed.
            if let Err(error) = end {
                tracing::debug!(
                    cause = error_chain(&error),
                    "lost a connection to the database"
                );
            }
        });
        Driver { _stop: stop }
    }
}

/// A connection that belongs to no pool.
pub struct Session {
    connection: AsyncPgConnection,
    _driver: Driver,
}

impl Session {
    pub(super) fn new(connection: AsyncPgConnection, driver: Driver) -> Self {
        Session {
            connection,
            _driver: driver,
        }
    }
}

impl Deref for Session {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection
    }
}
