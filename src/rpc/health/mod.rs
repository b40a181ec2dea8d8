//! The health of the service (`grpc.health.v1`), and the task that polls the database for it.

mod service;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic_health::pb::{
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};

use self::service::HealthService;
use crate::{
    db::{
        self, Database, DatabaseAddress, DbError, Session,
        migrations::{self, SchemaStatus},
    },
    ops::metrics::Metrics,
    util::error_chain::error_chain,
};

/// Interval and timeout of the database check. A change is reported after their sum at
/// most: less than 2 s.
const CHECK_INTERVAL: Duration = Duration::from_millis(700);
const CHECK_TIMEOUT: Duration = Duration::from_millis(1200);

/// The health of the service, over gRPC and as a metric. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    status: Arc<watch::Sender<Option<ServingStatus>>>,
    metrics: Metrics,
}

impl Health {
    /// Makes a health that starts as NOT_SERVING, and its gRPC service.
    #[must_use]
    pub fn new(metrics: &Metrics) -> (Self, HealthServer<impl health_server::Health>) {
        let (sender, status) = watch::channel(Some(ServingStatus::NotServing));
        let health = Health {
            status: Arc::new(sender),
            metrics: metrics.clone(),
        };
        health.metrics.serving().set(0);
        (health, HealthServer::new(HealthService { status }))
    }

    /// Sets the status of all names.
    pub fn set(&self, is_serving: bool) {
        let status = match is_serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        self.metrics.serving().set(is_serving.into());
        self.status.send_replace(Some(status));
    }

    /// Ends all health watches, which would otherwise last until the drain times out.
    pub fn clear(&self) {
        self.status.send_replace(None);
    }
}

/// Polls the database and sets the health. Never completes.
///
/// Uses a connection of its own, so that an exhausted pool is not taken for an outage.
/// `newest` is the migration that the schema must have.
pub async fn poll_database(
    health: Health,
    database: Database,
    address: DatabaseAddress,
    newest: String,
) {
    let mut connection = None;
    // `None` before the first check, then its problem, if any.
    let mut reported: Option<Option<String>> = None;
    let mut checked_at = Instant::now();
    loop {
        // The connection of the check still works when all new ones are refused. Without one for batches
        // the service can do nothing.
        let has_failed = database.outage().has_failed_since(checked_at);
        if has_failed && database.lacks_connections() {
            connection = None;
        }
        checked_at = Instant::now();
        let outcome = timeout(
            CHECK_TIMEOUT,
            check_database(&mut connection, &address, &newest),
        )
        .await;
        let problem = match outcome.unwrap_or(Err(DbError::TimedOut)) {
            Ok(status) => {
                database.outage().mark_over();
                problem_of(status).map(ToOwned::to_owned)
            }
            // The database answers, and the role has lost a right.
            Err(error @ DbError::MissingGrant { .. }) => {
                database.outage().mark_over();
                Some(error_chain(&error))
            }
            Err(error) => {
                database.outage().mark_started();
                // A part of the answer may still arrive, so the connection is dropped.
                connection = None;
                Some(error_chain(&error))
            }
        };
        if reported.as_ref() != Some(&problem) {
            health.set(problem.is_none());
            match &problem {
                None => {
                    tracing::info!("SERVING: the database is available and its schema is current")
                }
                Some(cause) => tracing::warn!(cause, "NOT_SERVING: the database cannot be used"),
            }
            reported = Some(problem);
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Returns the problem of a database that answers, if any.
fn problem_of(status: SchemaStatus) -> Option<&'static str> {
    if !status.has_newest {
        Some("the schema is behind; run `bridgebook migrate up`")
    } else if !status.is_writable {
        Some("the database is read-only")
    } else {
        None
    }
}

async fn check_database(
    connection: &mut Option<Session>,
    address: &DatabaseAddress,
    newest: &str,
) -> Result<SchemaStatus, DbError> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(db::connect(address).await?),
    };
    Ok(migrations::schema_status(connection, newest).await?)
}
