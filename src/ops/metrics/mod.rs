//! Metrics for Prometheus.
//!
//! Calls have the names of gRPC libraries (`grpc_server_…`), the process those of Prometheus' own
//! clients (`process_…`), all others begin with `bridgebook_`. Labels hold no values that callers
//! choose, except for the namespaces and tokens that [take most](usage), so the number of series is
//! bounded.
//! docs/monitoring.md has a table.

mod batches;
mod calls;
mod connections;
mod consumers;
mod database;
pub mod endpoint;
mod feed;
mod usage;
mod waits;

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
    core::{Atomic, Collector, GenericCounter},
};
use uuid::Uuid;

pub use self::{
    batches::OperationMetrics,
    calls::{CallMetrics, RunningCall},
    connections::ConnectionMetrics,
    consumers::ConsumerMetrics,
    database::{DatabaseMetrics, PoolMetrics, RETRY_CAUSES},
    feed::FeedMetrics,
    usage::UsageMetrics,
    waits::WaitMetrics,
};

/// All metrics of the service. Cheap to clone; clones share the values.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    calls: CallMetrics,
    namespaces: UsageMetrics<String>,
    tokens: UsageMetrics<Uuid>,
    consumers: ConsumerMetrics,
    connections: ConnectionMetrics,
    batches: batches::BatchMetrics,
    database: DatabaseMetrics,
    feed: FeedMetrics,
    waits: WaitMetrics,
    serving: IntGauge,
    panics: IntCounter,
    nodes: IntGaugeVec,
    stale_nodes: IntGauge,
    paused_fleets: IntGauge,
    journal_position: IntGauge,
    retention_rows: IntCounterVec,
    retention_failures: IntCounterVec,
    retention_busy: Counter,
    retention_lag: GaugeVec,
    on_scrape: Mutex<Vec<ScrapeHook>>,
}

/// Sets metrics whose values are kept elsewhere.
type ScrapeHook = Box<dyn Fn() + Send + Sync>;

impl Metrics {
    /// Registers all metrics, with the value zero.
    ///
    /// # Errors
    /// If two metrics have the same name, or a name is invalid.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = register(
            &registry,
            IntGaugeVec::new(
                prometheus::opts!(
                    "bridgebook_build_info",
                    "The running version, as a label; always 1."
                ),
                &["version"],
            )?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let namespaces = UsageMetrics::new(&registry, &usage::NAMESPACES)?;
        Ok(Metrics(Arc::new(Inner {
            calls: CallMetrics::new(&registry)?,
            consumers: ConsumerMetrics::new(&registry, &namespaces)?,
            namespaces,
            tokens: UsageMetrics::new(&registry, &usage::TOKENS)?,
            connections: ConnectionMetrics::new(&registry)?,
            batches: batches::BatchMetrics::new(&registry)?,
            database: DatabaseMetrics::new(&registry)?,
            feed: FeedMetrics::new(&registry)?,
            waits: WaitMetrics::new(&registry)?,
            serving: register(
                &registry,
                IntGauge::new(
                    "bridgebook_serving",
                    "1 while health reports SERVING, else 0.",
                )?,
            )?,
            panics: register(
                &registry,
                IntCounter::new(
                    "bridgebook_panics_total",
                    "Panics of calls, batches and background tasks, each a bug of the service.",
                )?,
            )?,
            nodes: register(
                &registry,
                IntGaugeVec::new(
                    prometheus::opts!(
                        "bridgebook_nodes",
                        "Registered nodes at the last poll; the same in all replicas."
                    ),
                    &["health_status"],
                )?,
            )?,
            stale_nodes: register(
                &registry,
                IntGauge::new(
                    "bridgebook_nodes_stale",
                    "Registered nodes that were silent for longer than their TTL at the last poll; \
                     the same in all replicas.",
                )?,
            )?,
            paused_fleets: register(
                &registry,
                IntGauge::new(
                    "bridgebook_fleets_paused",
                    "Fleets (nodes of one owner and type) for which the sweeper paused at the last \
                     poll, because most of their nodes became stale; the same in all replicas.",
                )?,
            )?,
            journal_position: register(
                &registry,
                IntGauge::new(
                    "bridgebook_journal_position",
                    "Number of the newest row of the journal at the last poll, of all replicas; its \
                     rate is the rate of transitions.",
                )?,
            )?,
            retention_rows: register(
                &registry,
                IntCounterVec::new(
                    prometheus::opts!(
                        "bridgebook_retention_rows_total",
                        "Expired rows removed by this replica."
                    ),
                    &["table"],
                )?,
            )?,
            retention_failures: register(
                &registry,
                IntCounterVec::new(
                    prometheus::opts!(
                        "bridgebook_retention_failures_total",
                        "Rows that the pruner of this replica could not remove, and groups of rows \
                         that it left because of another failure; the next pass tries again."
                    ),
                    &["table"],
                )?,
            )?,
            retention_busy: register(
                &registry,
                Counter::new(
                    "bridgebook_retention_busy_seconds_total",
                    "Time that the statements of the pruner took in this replica, in seconds; \
                     counted after the rest that follows each.",
                )?,
            )?,
            retention_lag: register(
                &registry,
                GaugeVec::new(
                    prometheus::opts!(
                        "bridgebook_retention_lag_seconds",
                        "Time since a pass of the pruner left no expired row, in seconds; about the \
                         prune interval while it keeps up."
                    ),
                    &["table"],
                )?,
            )?,
            on_scrape: Mutex::default(),
            registry,
        })))
    }

    /// Returns the metrics of calls.
    #[must_use]
    pub fn calls(&self) -> &CallMetrics {
        &self.0.calls
    }

    /// Returns the metrics of calls by namespace.
    #[must_use]
    pub fn namespaces(&self) -> &UsageMetrics<String> {
        &self.0.namespaces
    }

    /// Returns the metrics of calls by the id of their token.
    #[must_use]
    pub fn tokens(&self) -> &UsageMetrics<Uuid> {
        &self.0.tokens
    }

    /// Returns the metrics of bridges that consume the journal.
    #[must_use]
    pub fn consumers(&self) -> &ConsumerMetrics {
        &self.0.consumers
    }

    /// Returns the metrics of client connections.
    #[must_use]
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.0.connections
    }

    /// Returns the metrics of the batches of an operation.
    #[must_use]
    pub fn operation(&self, name: &str) -> OperationMetrics {
        self.0.batches.operation(name)
    }

    /// Returns the metrics of the database.
    #[must_use]
    pub fn database(&self) -> &DatabaseMetrics {
        &self.0.database
    }

    /// Returns the metrics of the feed of the journal.
    #[must_use]
    pub fn feed(&self) -> &FeedMetrics {
        &self.0.feed
    }

    /// Returns the metrics of what waits for its turn or for memory.
    #[must_use]
    pub fn waits(&self) -> &WaitMetrics {
        &self.0.waits
    }

    /// Returns the gauge that is 1 while health reports SERVING.
    #[must_use]
    pub fn serving(&self) -> &IntGauge {
        &self.0.serving
    }

    /// Returns the counter of panics.
    #[must_use]
    pub fn panics(&self) -> &IntCounter {
        &self.0.panics
    }

    /// Returns the metrics of retention for a table: the counters of expired rows that were
    /// removed and of failures, and the gauge of the time since the last complete pass.
    #[must_use]
    pub fn retention(&self, table: &str) -> (IntCounter, IntCounter, Gauge) {
        (
            self.0.retention_rows.with_label_values(&[table]),
            self.0.retention_failures.with_label_values(&[table]),
            self.0.retention_lag.with_label_values(&[table]),
        )
    }

    /// Returns the counter of the time that the statements of retention took, in seconds.
    #[must_use]
    pub fn retention_busy(&self) -> &Counter {
        &self.0.retention_busy
    }

    /// Sets the number of the newest row of the journal.
    pub fn set_journal_position(&self, position: i64) {
        self.0.journal_position.set(position);
    }

    /// Sets the number of registered nodes with a health status.
    pub fn set_nodes(&self, health_status: &str, count: i64) {
        self.0.nodes.with_label_values(&[health_status]).set(count);
    }

    /// Sets the number of stale nodes.
    pub fn set_stale_nodes(&self, count: i64) {
        self.0.stale_nodes.set(count);
    }

    /// Sets the number of fleets for which the sweeper is paused.
    pub fn set_paused_fleets(&self, count: i64) {
        self.0.paused_fleets.set(count);
    }

    /// Registers a metric of another module.
    ///
    /// # Errors
    /// If its name is taken or invalid.
    pub fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        register(&self.0.registry, metric)
    }

    /// Calls `hook` before each scrape. It sets metrics whose values are kept elsewhere.
    pub fn on_scrape(&self, hook: impl Fn() + Send + Sync + 'static) {
        let hooks = self.0.on_scrape.lock();
        let mut hooks = hooks.unwrap_or_else(PoisonError::into_inner);
        hooks.push(Box::new(hook));
    }

    /// Encodes all metrics in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// If a metric is invalid, which is a bug.
    pub fn text(&self) -> prometheus::Result<String> {
        let hooks = self.0.on_scrape.lock();
        let hooks = hooks.unwrap_or_else(PoisonError::into_inner);
        hooks.iter().for_each(|hook| hook());
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Raises a counter to a count that is kept elsewhere.
pub(crate) fn catch_up<P: Atomic>(counter: &GenericCounter<P>, count: P::T)
where
    P::T: PartialOrd + std::ops::Sub<Output = P::T>,
{
    let known = counter.get();
    if count > known {
        counter.inc_by(count - known);
    }
}
