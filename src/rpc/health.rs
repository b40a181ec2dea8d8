//! Health: what the service says of itself (`grpc.health.v1`), and the probe
//! that asks for it.

use std::{io, net::SocketAddr, time::Duration};

use diesel_async::AsyncPgConnection;
use tokio::{net::lookup_host, time::timeout};
use tonic::transport::ClientTlsConfig;
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest,
        health_client::HealthClient,
        health_server::{self, HealthServer},
    },
    server::HealthReporter,
};

use crate::{
    client,
    db::{
        self, Database, DbError,
        migrations::{self, Standing},
    },
    ops::metrics::Metrics,
    proto::v1::{
        admin_service_server, bridge_state_service_server, fsm_service_server,
        registry_service_server, workflow_service_server,
    },
    util::error_chain::error_chain,
};

/// How often the database is asked, and how long it has for an answer. Together
/// they are the longest that a change goes unnoticed: less than 2 s.
const INTERVAL: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_millis(1200);

/// How long the probe waits for an answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// The services that health is told of, beside the empty name for the whole.
const SERVICES: &[&str] = &[
    "",
    workflow_service_server::SERVICE_NAME,
    fsm_service_server::SERVICE_NAME,
    bridge_state_service_server::SERVICE_NAME,
    admin_service_server::SERVICE_NAME,
    registry_service_server::SERVICE_NAME,
];

/// What the service says of itself: over gRPC, and as a figure. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    metrics: Metrics,
}

impl Health {
    /// Not serving, to begin with; and the gRPC service that says so.
    pub async fn new(metrics: &Metrics) -> (Self, HealthServer<impl health_server::Health>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Health {
            reporter,
            metrics: metrics.clone(),
        };
        health.set(false).await;
        (health, service)
    }

    /// Sets the health of everything.
    pub async fn set(&self, is_serving: bool) {
        let status = match is_serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        self.metrics.serving().set(is_serving.into());
        for service in SERVICES {
            self.reporter.set_service_status(*service, status).await;
        }
    }

    /// Ends the watches of everybody who watches.
    pub async fn clear(&self) {
        for service in SERVICES {
            self.reporter.clone().clear_service_status(service).await;
        }
    }
}

/// Watches the database for ever, on a connection of its own, so that a busy
/// pool is not taken for a dead database. `newest` is the migration that the schema
/// has to have.
pub async fn watch(health: Health, database: Database, url: String, newest: String) {
    let mut connection = None;
    // `None` before the first answer, then what is the matter, if anything is.
    let mut told: Option<Option<String>> = None;
    loop {
        let answer = timeout(PATIENCE, check(&mut connection, &url, &newest)).await;
        let trouble = match answer.unwrap_or(Err(DbError::TimedOut)) {
            Ok(standing) => {
                database.outage().mark_over();
                trouble(standing).map(ToOwned::to_owned)
            }
            Err(error) => {
                database.outage().mark_started();
                // Half an answer may be on its way: never to be used again.
                connection = None;
                Some(error_chain(&error))
            }
        };
        if told.as_ref() != Some(&trouble) {
            health.set(trouble.is_none()).await;
            match &trouble {
                None => tracing::info!("the database answers and its schema is current: SERVING"),
                Some(cause) => tracing::warn!(cause, "the database can not be used: NOT_SERVING"),
            }
            told = Some(trouble);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Why a database that answers can't be used.
fn trouble(standing: Standing) -> Option<&'static str> {
    if !standing.has_newest {
        Some("its schema is behind; run `bridgebook migrate up`")
    } else if !standing.is_writable {
        Some("it is read-only")
    } else {
        None
    }
}

async fn check(
    connection: &mut Option<AsyncPgConnection>,
    url: &str,
    newest: &str,
) -> Result<Standing, DbError> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(db::connect(url).await?),
    };
    Ok(migrations::standing(connection, newest).await?)
}

/// Why the probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The address says nothing.
    #[error("{address} is no address with a port, like localhost:50051")]
    Address {
        /// The address.
        address: String,
        /// Why it could not be looked up.
        #[source]
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[from] tonic::transport::Error),
    /// There was no answer in time.
    #[error("no answer within {} s", PROBE_PATIENCE.as_secs())]
    Timeout(#[from] tokio::time::error::Elapsed),
    /// The answer is an error.
    #[error("the service answered {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    /// The answer is no.
    #[error("the service is {0}")]
    NotServing(&'static str),
}

/// Asks the service at `address`, a host and a port, whether it is SERVING; over
/// TLS if it is said how.
///
/// # Errors
/// Every [`ProbeError`].
pub async fn probe(address: &str, tls: Option<ClientTlsConfig>) -> Result<(), ProbeError> {
    timeout(PROBE_PATIENCE, ask(address, tls)).await?
}

async fn ask(address: &str, tls: Option<ClientTlsConfig>) -> Result<(), ProbeError> {
    let unknown = |source| ProbeError::Address {
        address: address.to_owned(),
        source,
    };
    let mut addresses = lookup_host(address).await.map_err(unknown)?;
    // Ours are IPv4 unless somebody said otherwise.
    let first = addresses
        .next()
        .ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
    let mut address = addresses
        .chain([first])
        .find(SocketAddr::is_ipv4)
        .unwrap_or(first);
    if address.ip().is_unspecified() {
        // Where the service listens everywhere, it listens here.
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let endpoint = match tls {
        Some(tls) => client::endpoint(&format!("https://{address}"))?.tls_config(tls)?,
        None => client::endpoint(&address.to_string())?,
    };
    let mut client = HealthClient::new(endpoint.connect().await?);
    let answer = client
        .check(HealthCheckRequest::default())
        .await
        .map_err(|status| ProbeError::Status(Box::new(status)))?;
    match answer.into_inner().status() {
        tonic_health::pb::health_check_response::ServingStatus::Serving => Ok(()),
        other => Err(ProbeError::NotServing(other.as_str_name())),
    }
}
