//! A connection to PostgreSQL: how one is made, and what holds for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::PoolableConnection,
};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls, config::Host};

use super::{DbError, instrumentation::StatementObserver};
use crate::{ops::metrics::PoolMetrics, util::error_chain::error_chain};

/// How long a connection may take to be made; a server that is there answers in
/// milliseconds, but it may be the third host that is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long each host has to take the connection, in seconds. When to give up on a
/// link over which nothing is acknowledged, in seconds, and after how long a silence
/// to ask whether it is still there: the operating system's own answer is two hours.
/// And that a standby is not what we look for: of many hosts it is the primary, and a
/// failover does not end in stale reads.
const CONNECTION_SETTINGS: [&str; 4] = [
    "connect_timeout=1",
    "tcp_user_timeout=10",
    "keepalives_idle=30",
    "target_session_attrs=read-write",
];

/// For how long plans of batches are kept; planning all of them takes milliseconds.
const PLANS_LAST: Duration = Duration::from_secs(10);

/// Connects to a database that can be written to.
///
/// # Errors
/// Whatever the connection fails with; [`ConnectionError::BadConnection`] after 3 s.
pub async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    connect_to_any(&with_connection_settings(url)).await
}

/// Connects to a database, be it a standby.
///
/// # Errors
/// Those of [`connect`].
pub(super) async fn connect_to_any(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let config: Config = url
        .parse()
        .map_err(|error| ConnectionError::InvalidConnectionUrl(error_chain(&error)))?;
    // What Diesel makes of an error of the connection leaves out what is the matter.
    let bad = |cause| ConnectionError::BadConnection(format!("{}: {cause}", addresses(&config)));
    let connected = timeout(CONNECT_TIMEOUT, async {
        let connected = config.connect(NoTls).await;
        let (client, connection) = connected.map_err(|error| bad(error_chain(&error)))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await
    });
    let connected = connected.await;
    connected.unwrap_or_else(|_| Err(bad("no answer in time".to_owned())))
}

/// Where a database is: `db1:5432, db2:5432`.
fn addresses(config: &Config) -> String {
    let ports = config.get_ports();
    let addresses = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied();
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        match host {
            Host::Tcp(name) => format!("{name}{port}"),
            Host::Unix(path) => format!("{}{port}", path.display()),
        }
    });
    addresses.collect::<Vec<_>>().join(", ")
}

/// A connection, and whether something may still be under way on it.
pub(super) struct Connection {
    pub(super) connection: AsyncPgConnection,
    /// Set before work and cleared after: a connection on which something may
    /// still be under way is not used again.
    pub(super) is_busy: bool,
    /// Since when its plans are kept.
    planned_at: Instant,
}

impl Connection {
    /// Has PostgreSQL plan its statements anew, if it is time.
    pub(super) async fn forget_old_plans(&mut self) -> Result<(), DbError> {
        if self.planned_at.elapsed() > PLANS_LAST {
            self.connection.batch_execute("DISCARD PLANS").await?;
            self.planned_at = Instant::now();
        }
        Ok(())
    }
}

/// Makes the connections of a pool.
pub(super) struct Manager {
    pub(super) url: String,
    /// What holds for all of them: settings, as SQL.
    pub(super) setup: &'static str,
    pub(super) metrics: PoolMetrics,
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = ConnectionError;

    async fn connect(&self) -> ConnectionResult<Connection> {
        let mut connection = connect(&self.url).await?;
        let done = timeout(CONNECT_TIMEOUT, connection.batch_execute(self.setup)).await;
        let done = done.unwrap_or(Err(diesel::result::Error::BrokenTransactionManager));
        done.map_err(ConnectionError::CouldntSetupConfiguration)?;
        let observer = StatementObserver::new(self.metrics.clone());
        connection.set_instrumentation(observer);
        Ok(Connection {
            connection,
            is_busy: false,
            planned_at: Instant::now(),
        })
    }

    /// Costs no round trip, which would prove nothing about the moment after: a
    /// connection that is known to be closed is not handed out, and one that
    /// dies later is retried.
    async fn is_valid(&self, link: &mut Connection) -> ConnectionResult<()> {
        match self.has_broken(link) {
            true => Err(ConnectionError::BadConnection("it is closed".to_owned())),
            false => Ok(()),
        }
    }

    fn has_broken(&self, link: &mut Connection) -> bool {
        link.is_busy || link.connection.is_broken()
    }
}

/// Why connections could not be made lately: bb8 tells whoever waits only that
/// there was none in time.
#[derive(Debug, Clone, Default)]
pub(super) struct LastFailure(Arc<Mutex<Option<Arc<ConnectionError>>>>);

impl LastFailure {
    /// The last reason, which is forgotten.
    pub(super) fn take(&self) -> Option<Arc<ConnectionError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl bb8::ErrorSink<ConnectionError> for LastFailure {
    fn sink(&self, error: ConnectionError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ConnectionError>> {
        Box::new(self.clone())
    }
}

/// Adds our settings to a URL that does not have its own.
fn with_connection_settings(url: &str) -> String {
    let mut url = url.to_owned();
    for setting in CONNECTION_SETTINGS {
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
    fn a_url_keeps_its_own_settings() {
        assert_eq!(
            with_connection_settings("postgres://a@b/c"),
            "postgres://a@b/c?connect_timeout=1&tcp_user_timeout=10&keepalives_idle=30&target_session_attrs=read-write"
        );
        assert_eq!(
            with_connection_settings("postgres://a@b/c?keepalives_idle=5"),
            "postgres://a@b/c?keepalives_idle=5&connect_timeout=1&tcp_user_timeout=10&target_session_attrs=read-write"
        );
    }
}
