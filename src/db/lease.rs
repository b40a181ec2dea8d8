//! A connection of a pool, for one piece of work.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use bb8::PooledConnection;
use diesel_async::SimpleAsyncConnection;
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::NoTls;

use super::connection::{Connection, Manager};

/// How long a statement that nobody waits for any more may go on before it is
/// cancelled: most end by themselves before PostgreSQL would have heard of it, and
/// leave a connection that is good for the next.
const ENDS_BY_ITSELF: Duration = Duration::from_millis(50);

/// How long a request to cancel may take.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// A connection of a pool, for one piece of work. Whoever goes away in the middle of
/// it leaves nothing running in PostgreSQL.
pub(super) struct Lease(Option<PooledConnection<'static, Manager>>);

impl Lease {
    /// Takes a connection for a piece of work that begins now.
    pub(super) fn begin(mut link: PooledConnection<'static, Manager>) -> Self {
        link.is_busy = true;
        Lease(Some(link))
    }

    /// Gives the connection back: all was read, and it is good for the next.
    pub(super) fn give_back(mut self) {
        if let Some(mut link) = self.0.take() {
            link.is_busy = false;
        }
    }

    /// Closes the connection, which is of no more use.
    pub(super) fn close(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "it is taken only where the lease ends")]
    fn deref(&self) -> &Connection {
        self.0.as_deref().expect("a lease has a connection")
    }
}

impl DerefMut for Lease {
    #[expect(clippy::expect_used, reason = "it is taken only where the lease ends")]
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.as_deref_mut().expect("a lease has a connection")
    }
}

/// Something may still be under way, or unread.
impl Drop for Lease {
    fn drop(&mut self) {
        // Without a runtime everything ends anyway.
        if let (Some(link), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(quieten(link));
        }
    }
}

/// Waits a moment for what is under way to end, and cancels it then. A connection on
/// which something was cancelled is closed: the request, which goes its own way,
/// could meet the next statement.
async fn quieten(mut link: PooledConnection<'static, Manager>) {
    let cancel = link.connection.cancel_token();
    // PostgreSQL answers this when it has done with what came before.
    let quiet = timeout(ENDS_BY_ITSELF, link.connection.batch_execute("")).await;
    match quiet {
        Ok(outcome) => link.is_busy = outcome.is_err(),
        // It is closed, then, and the server ends what goes on.
        Err(_) => drop(timeout(CANCEL_PATIENCE, cancel.cancel_query(NoTls)).await),
    }
}
