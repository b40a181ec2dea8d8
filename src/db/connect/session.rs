//! Connections outside of a pool, and the tasks that drive connections.

use std::{
    convert::Infallible,
    future::poll_fn,
    ops::{Deref, DerefMut},
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use diesel_async::AsyncPgConnection;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Connection, Notification};

use crate::util::error_chain::error_chain;

/// How long a connection that is dropped may wait for the server, to end in order. A connection that is
/// idle only sends its last message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Drives a connection. If it is dropped, the connection ends, also if a statement still runs.
pub struct Driver {
    _stop: oneshot::Sender<Infallible>,
    notifications: Option<UnboundedReceiver<Notification>>,
}

impl Driver {
    /// Starts a task that drives a connection.
    pub(super) fn start<S, T>(mut connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (sender, notifications) = unbounded_channel();
        tokio::spawn(async move {
            let mut driven = pin!(poll_fn(|context| poll(&mut connection, &sender, context)));
            let end = tokio::select! {
                end = &mut driven => end,
                _ = stopped => timeout(CLOSE_TIMEOUT, driven).await.unwrap_or(Ok(())),
            };
            // Statements that run at that moment get the same error. Later ones find the connection closed.
            if let Err(error) = end {
                tracing::debug!(
                    cause = error_chain(&error),
                    "lost a connection to the database"
                );
            }
        });
        Driver {
            _stop: stop,
            notifications: Some(notifications),
        }
    }
}

/// Drives a connection until it ends, and passes its notifications on.
fn poll<S, T>(
    connection: &mut Connection<S, T>,
    notifications: &UnboundedSender<Notification>,
    context: &mut Context<'_>,
) -> Poll<Result<(), tokio_postgres::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = ready!(connection.poll_message(context)) {
        if let AsyncMessage::Notification(notification) = message? {
            // A session that does not listen has dropped the receiver, and gets none.
            let _ = notifications.send(notification);
        }
    }
    Poll::Ready(Ok(()))
}

/// A connection that belongs to no pool.
pub struct Session {
    connection: AsyncPgConnection,
    driver: Driver,
}

impl Session {
    pub(super) fn new(connection: AsyncPgConnection, driver: Driver) -> Self {
        Session { connection, driver }
    }

    /// Takes the notifications that the session gets from now on. To be called once.
    pub(crate) fn take_notifications(&mut self) -> Option<UnboundedReceiver<Notification>> {
        self.driver.notifications.take()
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
