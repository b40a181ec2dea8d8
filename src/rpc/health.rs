//! The health service (`grpc.health.v1`), and the task that polls the database for it.

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use tokio::time::timeout;
use tonic_health::{
    ServingStatus,
    pb::health_server::{self, HealthServer},
    server::HealthReporter,
};

use crate::{
    db::{
        self, Database, DbError,
        migrations::{self, Standing},
    },
    ops::metrics::Metrics,
    proto::v1::{
        admin_service_server, bridge_state_service_server, fsm_service_server,
        registry_service_server, server_service_server, workflow_service_server,
    },
    util::error_chain::error_chain,
};

/// How often the database is asked, and how long it has for an answer. Together
/// they are the longest that a change goes unnoticed: less than 2 s.
const INTERVAL: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_millis(1200);

/// The services that health is told of, beside the empty name for the whole.
const SERVICES: &[&str] = &[
    "",
    workflow_service_server::SERVICE_NAME,
    fsm_service_server::SERVICE_NAME,
    bridge_state_service_server::SERVICE_NAME,
    admin_service_server::SERVICE_NAME,
    registry_service_server::SERVICE_NAME,
    server_service_server::SERVICE_NAME,
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
