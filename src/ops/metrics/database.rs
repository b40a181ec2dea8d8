//! What passes between us and PostgreSQL.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, opts};

use super::{follow, register};

/// Why a statement is retried: the labels of `bridgebook_database_retries_total`.
pub const RETRY_CAUSES: [&str; 2] = ["unavailable", "transient"];

/// The database, in all.
#[derive(Clone)]
pub struct DatabaseMetrics {
    /// Statements, by pool: each is a round trip.
    pub statements: IntCounterVec,
    /// Statements that failed, by pool.
    pub failures: IntCounterVec,
    /// Pieces of work that are tried again, by the cause.
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
                "Statements sent to PostgreSQL; each is a round trip.",
                by_pool,
            )?,
            failures: counter(
                "bridgebook_database_statement_failures_total",
                "Statements that failed.",
                by_pool,
            )?,
            retries: counter(
                "bridgebook_database_retries_total",
                "Batches and queries that are tried again: the database was unavailable, or a \
                 failure may pass (transient), such as a deadlock.",
                &["cause"],
            )?,
            connections: gauge(
                "bridgebook_pool_connections",
                "Connections to PostgreSQL.",
                &["pool", "state"],
            )?,
            max_connections: gauge(
                "bridgebook_pool_max_connections",
                "How many connections to PostgreSQL there may be.",
                by_pool,
            )?,
            opened: counter(
                "bridgebook_pool_opened_total",
                "Connections to PostgreSQL that were made.",
                by_pool,
            )?,
            waits: counter(
                "bridgebook_pool_waits_total",
                "Pieces of work that had to wait for a connection.",
                by_pool,
            )?,
            timeouts: counter(
                "bridgebook_pool_timeouts_total",
                "Pieces of work that waited for a connection in vain.",
                by_pool,
            )?,
        };
        // So that the first one is an increase, and not a figure that was not there.
        for cause in RETRY_CAUSES {
            metrics.retries.with_label_values(&[cause]);
        }
        Ok(metrics)
    }

    /// One pool.
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

/// One pool of connections.
#[derive(Clone)]
pub struct PoolMetrics {
    /// Statements.
    pub statements: IntCounter,
    /// Those that failed.
    pub failures: IntCounter,
    busy: IntGauge,
    idle: IntGauge,
    opened: IntCounter,
    waits: IntCounter,
    timeouts: IntCounter,
}

impl PoolMetrics {
    /// Sets what the pool itself counts.
    pub fn set(&self, state: &bb8::State) {
        let busy = state.connections.saturating_sub(state.idle_connections);
        self.busy.set(busy.into());
        self.idle.set(state.idle_connections.into());
        follow(&self.opened, state.statistics.connections_created);
        follow(&self.waits, state.statistics.get_waited);
        follow(&self.timeouts, state.statistics.get_timed_out);
    }
}
