//! Leases of pooled connections, which cancel abandoned statements.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use bb8::PooledConnection;
use diesel_async::SimpleAsyncConnection;
use tokio::{runtime::Handle, time::timeout};

use super::{
    connection::{Connection, Manager},
    turns::Turn,
};

/// How long a call waits for a connection.
pub(super) const LEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an abandoned statement may go on before it is cancelled. Most end before a cancel
/// request would reach PostgreSQL, and leave a reusable connection. The rows that it sends meanwhile
/// are received and dropped, which takes no memory and less time than a new connection.
const CANCEL_AFTER: Duration = Duration::from_millis(50);

/// The timeout of a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A pooled connection, for one query or batch. If it is dropped early, nothing keeps running
/// in PostgreSQL.
pub(super) struct Lease {
    connection: Option<PooledConnection<'static, Manager>>,
    /// The turn of a query, which goes on until the connection is back in the pool. So the next
    /// turn finds a connection.
    turn: Option<Arc<Turn>>,
}

impl Lease {
    /// Starts a lease.
    pub(super) fn begin(mut connection: PooledConnection<'static, Manager>) -> Self {
        connection.is_busy = true;
        Lease {
            connection: Some(connection),
            turn: None,
        }
    }

    /// Makes the lease a part of a turn.
    pub(super) fn in_turn(&mut self, turn: &Arc<Turn>) {
        self.turn = Some(Arc::clone(turn));
    }

    /// Returns the connection to its pool. All rows have been read.
    pub(super) fn give_back(mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.is_busy = false;
        }
    }

    /// Closes the connection.
    pub(super) fn close(mut self) {
        drop(self.connection.take());
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "it is taken only when the lease ends")]
    fn deref(&self) -> &Connection {
        self.connection
            .as_deref()
            .expect("a lease has a connection")
    }
}

impl DerefMut for Lease {
    #[expect(clippy::expect_used, reason = "it is taken only when the lease ends")]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_deref_mut()
            .expect("a lease has a connection")
    }
}

/// Cleans up after an abandoned statement: it may still run, or rows may be unread.
impl Drop for Lease {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) {
            let turn = self.turn.take();
            runtime.spawn(async move {
                clean_up(connection).await;
                drop(turn);
            });
        }
    }
}

/// Waits a moment for the statement to end, and then cancels it. A cancel request travels on
/// a connection of its own and could hit the next statement, so the connection is closed.
async fn clean_up(mut connection: PooledConnection<'static, Manager>) {
    let canceller = connection.canceller.clone();
    // PostgreSQL answers an empty statement after everything before it.
    let idle = timeout(CANCEL_AFTER, connection.connection.batch_execute("")).await;
    match idle {
        Ok(outcome) => connection.is_busy = outcome.is_err(),
        // The connection stays busy, so the pool closes it.
        Err(_) => drop(timeout(CANCEL_TIMEOUT, canceller.cancel()).await),
    }
}
