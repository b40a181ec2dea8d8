//! Connections to PostgreSQL: connection settings, and the manager of a pool.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::PoolableConnection,
};
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::{Config, NoTls, config::Host, error::SqlState};

use super::{
    DbError,
    instrumentation::StatementObserver,
    outage::OutageDetector,
    planner::{BatchTimeouts, PLAN_LIFETIME},
};
use crate::{ops::metrics::PoolMetrics, util::error_chain::error_chain};

/// The timeout of connecting. A server answers in milliseconds, but it may be the third host
/// of the URL.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connection parameters for a URL that does not set its own. Each host has 1 s to accept the
/// connection. A connection without acknowledgement is dead after 10 s, and an idle one is
/// probed after 30 s (the default of Linux is two hours). Of several hosts only the primary is
/// used, so that reads are not stale after a failover.
const CONNECTION_SETTINGS: [&str; 4] = [
    "connect_timeout=1",
    "tcp_user_timeout=10",
    "keepalives_idle=30",
    "target_session_attrs=read-write",
];

/// Makes PostgreSQL send its messages in English, because some errors are recognised by their
/// text, see [`DbError`]. Needs a superuser, or (PostgreSQL 15) GRANT SET ON PARAMETER. Without
/// the right the session keeps the database's language.
const ENGLISH_MESSAGES: &str = "DO $$ BEGIN
         SET lc_messages = 'C';
     EXCEPTION WHEN insufficient_privilege THEN NULL;
     END $$";

/// Connects to a database that can be written to.
///
/// # Errors
/// Errors of the connection; [`ConnectionError::BadConnection`] after 3 s.
pub async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    connect_to_any(&with_connection_settings(url)).await
}

/// Connects to a primary or a standby.
///
/// # Errors
/// Those of [`connect`].
pub(super) async fn connect_to_any(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let config: Config = url
        .parse()
        .map_err(|error| ConnectionError::InvalidConnectionUrl(error_chain(&error)))?;
    // Diesel's own conversion of connection errors drops their cause.
    let bad = |cause| ConnectionError::BadConnection(format!("{}: {cause}", addresses(&config)));
    let connected = timeout(CONNECT_TIMEOUT, async {
        let connected = config.connect(NoTls).await;
        let (client, connection) =
            connected.map_err(|error| bad(format!("{}{}", error_chain(&error), remedy(&error))))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await
    });
    let connected = connected.await;
    connected.unwrap_or_else(|_| {
        Err(bad(format!(
            "no answer within {} s",
            CONNECT_TIMEOUT.as_secs()
        )))
    })
}

/// Returns what to do about a server that refuses the database, the role or the password of a URL.
/// Waiting does not help, unless they are about to be created.
fn remedy(error: &tokio_postgres::Error) -> &'static str {
    match error.code() {
        Some(&SqlState::INVALID_CATALOG_NAME) => {
            "; create the database, or correct its name in --database-url"
        }
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION | &SqlState::INVALID_PASSWORD) => {
            "; create the role, allow it to connect (pg_hba.conf), or correct the user and password \
             in --database-url"
        }
        _ => "",
    }
}

/// Returns the addresses of a database: `db1:5432, db2:5432`.
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

/// A pooled connection.
pub(super) struct Connection {
    pub(super) connection: AsyncPgConnection,
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
    pub(super) url: String,
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
        let url = self.url.clone();
        let connected = self.runtime.spawn(async move { connect(&url).await });
        let connected = connected
            .await
            .map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
        let mut connection = connected?;
        let setup = format!("{ENGLISH_MESSAGES}; {}", self.setup);
        let setup = timeout(CONNECT_TIMEOUT, connection.batch_execute(&setup)).await;
        setup
            .map_err(|_| ConnectionError::BadConnection("session setup timed out".to_owned()))?
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        let observer = StatementObserver::new(self.metrics.clone());
        connection.set_instrumentation(observer);
        Ok(Connection {
            connection,
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

/// Adds the parameters of [`CONNECTION_SETTINGS`] that a URL does not set.
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
    fn settings_of_the_url_take_precedence() {
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
