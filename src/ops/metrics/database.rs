//! Metrics of PostgreSQL: statements, retries and pools.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, opts};

use super::{catch_up, register};

/// Why a statement is retried: the labels of `bridgebook_database_retries_total`.
pub const RETRY_CAUSES: [&str; 2] = ["unavailable", "transient"];

/// Metrics of the database.
#[derive(Clone)]
pub struct DatabaseMetrics {
    /// Statements, by pool. Each is a round trip.
    pub statements: IntCounterVec,
    /// Failed statements, by pool.
    pub failures: IntCounterVec,
    /// Retries of batches and queries, by cause.
    pub retries: IntCounterVec,
    connections: IntGaugeVec,
    max_connections: IntGaugeVec,
    opened: IntCounterVec,
    waits: IntCounterVec,
    timeouts: IntCounterVec,
}

impl DatabaseMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| {
            register(registry, IntCounterVec::new(opts!(name, help), labels)?)
        };
        let gauge = |name, help, labels: &[&str]| {
            register(registry, IntGaugeVec::new(opts!(name, help), labels)?)
        };
        let by_pool = &["pool"];
        let metrics = DatabaseMetrics {
            statements: counter(
                "bridgebook_database_statements_total",
                "Statements sent to PostgreSQL, each a round trip.",
                by_pool,
            )?,
            failures: counter(
                "bridgebook_database_statement_failures_total",
                "Failed statements.",
                by_pool,
            )?,
            retries: counter(
                "bridgebook_database_retries_total",
                "Retries of batches and queries, by cause: an unreachable database (unavailable), or \
                 a temporary failure such as a deadlock (transient).",
                &["cause"],
            )?,
            connections: gauge(
                "bridgebook_pool_connections",
                "Open connections to PostgreSQL, by state.",
                &["pool", "state"],
            )?,
            max_connections: gauge(
                "bridgebook_pool_max_connections",
                "Maximum number of connections to PostgreSQL.",
                by_pool,
            )?,
            opened: counter(
                "bridgebook_pool_opened_total",
                "Connections to PostgreSQL that were opened.",
                by_pool,
            )?,
            waits: counter(
                "bridgebook_pool_waits_total",
                "Leases that waited for a connection.",
                by_pool,
            )?,
            timeouts: counter(
                "bridgebook_pool_timeouts_total",
                "Leases that timed out while waiting for a connection.",
                by_pool,
            )?,
        };
        // A series must exist before its first retry, or rate() does not see the increase.
        for cause in RETRY_CAUSES {
            metrics.retries.with_label_values(&[cause]);
        }
        Ok(metrics)
    }

    /// Returns the metrics of one pool.
    #[must_use]
    pub fn pool(&self, name: &str, max_connections: u32) -> PoolMetrics {
        let max = self.max_connections.with_label_values(&[name]);
        max.set(max_connections.into());
        PoolMetrics {
            statements: self.statements.with_label_values(&[name]),
            failures: self.failures.with_label_values(&[name]),
            busy: self.connections.with_label_values(&[name, "busy"]),
            idle: self.connections.with_label_values(&[name, "idle"]),
            opened: self.opened.with_label_values(&[name]),
            waits: self.waits.with_label_values(&[name]),
            timeouts: self.timeouts.with_label_values(&[name]),
        }
    }
}

/// Metrics of one pool.
#[derive(Clone)]
pub struct PoolMetrics {
    /// Statements sent.
    pub statements: IntCounter,
    /// Failed statements.
    pub failures: IntCounter,
    busy: IntGauge,
    idle: IntGauge,
    opened: IntCounter,
    waits: IntCounter,
    timeouts: IntCounter,
}

impl PoolMetrics {
    /// Sets the metrics that the pool itself counts.
    pub fn set(&self, state: &bb8::State) {
        let busy = state.connections.saturating_sub(state.idle_connections);
        self.busy.set(busy.into());
        self.idle.set(state.idle_connections.into());
        catch_up(&self.opened, state.statistics.connections_created);
        catch_up(&self.waits, state.statistics.get_waited);
        catch_up(&self.timeouts, state.statistics.get_timed_out);
    }
}
