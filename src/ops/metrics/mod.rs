//! What the service counts, for Prometheus.
//!
//! Calls go by the names that gRPC libraries use (`grpc_server_…`), the process by those
//! of Prometheus' own clients (`process_…`), all else is `bridgebook_…`. No label has a
//! tenant's name, or anything else that callers choose. docs/monitoring.md has a table.

mod batches;
mod calls;
mod connections;
mod database;
pub mod endpoint;

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
    core::{Atomic, Collector, GenericCounter},
};

pub use self::{
    batches::OperationMetrics,
    calls::{CallMetrics, RunningCall},
    connections::ConnectionMetrics,
    database::{DatabaseMetrics, PoolMetrics, RETRY_CAUSES},
};

/// Everything that is counted. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    calls: CallMetrics,
    connections: ConnectionMetrics,
    batches: batches::BatchMetrics,
    database: DatabaseMetrics,
    serving: IntGauge,
    panics: IntCounter,
    nodes: IntGaugeVec,
    stale_nodes: IntGauge,
    journal_position: IntGauge,
    retention_rows: IntCounterVec,
    retention_lag: GaugeVec,
    on_scrape: Mutex<Vec<Look>>,
}

/// Sets figures that somebody else keeps.
type Look = Box<dyn Fn() + Send + Sync>;

impl Metrics {
    /// Everything at zero.
    ///
    /// # Errors
    /// If two figures have the same name, or one has none that Prometheus takes.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = register(
            &registry,
            IntGaugeVec::new(
                prometheus::opts!("bridgebook_build_info", "Which version runs; always 1."),
                &["version"],
            )?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Metrics(Arc::new(Inner {
            calls: CallMetrics::new(&registry)?,
            connections: ConnectionMetrics::new(&registry)?,
            batches: batches::BatchMetrics::new(&registry)?,
            database: DatabaseMetrics::new(&registry)?,
            serving: register(
                &registry,
                IntGauge::new("bridgebook_serving", "Whether health says SERVING: 1 or 0.")?,
            )?,
            panics: register(
                &registry,
                IntCounter::new(
                    "bridgebook_panics_total",
                    "Panics of tasks: faults of the service.",
                )?,
            )?,
            nodes: register(
                &registry,
                IntGaugeVec::new(
                    prometheus::opts!(
                        "bridgebook_nodes",
                        "Registered nodes, as last looked at; the same in all replicas."
                    ),
                    &["health_status"],
                )?,
            )?,
            stale_nodes: register(
                &registry,
                IntGauge::new(
                    "bridgebook_nodes_stale",
                    "Registered nodes that have been silent for longer than their TTL, as last \
                     looked at; the same in all replicas.",
                )?,
            )?,
            journal_position: register(
                &registry,
                IntGauge::new(
                    "bridgebook_journal_position",
                    "The number of the newest row of the journal, of all replicas together, as \
                     last looked at; its rate is that of state changes.",
                )?,
            )?,
            retention_rows: register(
                &registry,
                IntCounterVec::new(
                    prometheus::opts!(
                        "bridgebook_retention_rows_total",
                        "Rows that were removed because they were older than they get."
                    ),
                    &["table"],
                )?,
            )?,
            retention_lag: register(
                &registry,
                GaugeVec::new(
                    prometheus::opts!(
                        "bridgebook_retention_lag_seconds",
                        "How long ago no row was older than it gets; about the interval of \
                         pruning where that keeps up."
                    ),
                    &["table"],
                )?,
            )?,
            on_scrape: Mutex::default(),
            registry,
        })))
    }

    /// Calls.
    #[must_use]
    pub fn calls(&self) -> &CallMetrics {
        &self.0.calls
    }

    /// Connections of clients.
    #[must_use]
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.0.connections
    }

    /// Batches of an operation.
    #[must_use]
    pub fn operation(&self, name: &str) -> OperationMetrics {
        self.0.batches.operation(name)
    }

    /// What passes between us and PostgreSQL.
    #[must_use]
    pub fn database(&self) -> &DatabaseMetrics {
        &self.0.database
    }

    /// Whether health says SERVING.
    #[must_use]
    pub fn serving(&self) -> &IntGauge {
        &self.0.serving
    }

    /// Panics.
    #[must_use]
    pub fn panics(&self) -> &IntCounter {
        &self.0.panics
    }

    /// Rows of a table that were removed for their age, and for how long some have been
    /// there that should have been, in seconds.
    #[must_use]
    pub fn retention(&self, table: &str) -> (IntCounter, Gauge) {
        (
            self.0.retention_rows.with_label_values(&[table]),
            self.0.retention_lag.with_label_values(&[table]),
        )
    }

    /// Sets the position of the newest row of the journal.
    pub fn set_journal_position(&self, position: i64) {
        self.0.journal_position.set(position);
    }

    /// Sets the number of registered nodes with a health status.
    pub fn set_nodes(&self, health_status: &str, count: i64) {
        self.0.nodes.with_label_values(&[health_status]).set(count);
    }

    /// Sets the number of nodes that are silent for longer than their TTL.
    pub fn set_stale_nodes(&self, count: i64) {
        self.0.stale_nodes.set(count);
    }

    /// Adds a figure of another module's.
    ///
    /// # Errors
    /// If there is one with this name.
    pub fn register<C: Collector + Clone + 'static>(&self, figure: C) -> prometheus::Result<C> {
        register(&self.0.registry, figure)
    }

    /// Has `look` set figures that somebody else keeps, before each answer.
    pub fn on_scrape(&self, look: impl Fn() + Send + Sync + 'static) {
        let looks = self.0.on_scrape.lock();
        let mut looks = looks.unwrap_or_else(PoisonError::into_inner);
        looks.push(Box::new(look));
    }

    /// All figures, as Prometheus reads them (text format 0.0.4).
    ///
    /// # Errors
    /// If a figure can't be written, which is a fault of ours.
    pub fn text(&self) -> prometheus::Result<String> {
        let looks = self.0.on_scrape.lock();
        let looks = looks.unwrap_or_else(PoisonError::into_inner);
        looks.iter().for_each(|look| look());
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    figure: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(figure.clone()))?;
    Ok(figure)
}

/// Brings a counter to where somebody else's count is.
pub(crate) fn follow<P: Atomic>(counter: &GenericCounter<P>, count: P::T)
where
    P::T: PartialOrd + std::ops::Sub<Output = P::T>,
{
    let known = counter.get();
    if count > known {
        counter.inc_by(count - known);
    }
}
