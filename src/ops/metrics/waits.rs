//! Metrics of what waits for its turn or for memory: lists and statistics, tenants, and batches that
//! read documents.

use std::time::Duration;

use prometheus::{Histogram, IntGauge, IntGaugeVec, Registry, histogram_opts, opts};

use super::{batches::SECONDS, register};

/// Metrics of waits. Cheap to clone.
#[derive(Clone)]
pub struct WaitMetrics {
    query_seconds: Histogram,
    queries: IntGaugeVec,
    query_owners: IntGauge,
    queue_tenants: IntGaugeVec,
    memory_seconds: Histogram,
    memory_bytes: IntGauge,
}

impl WaitMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let query_seconds = histogram_opts!(
            "bridgebook_query_wait_seconds",
            "Time that lists and statistics wait for their turn, in seconds.",
            SECONDS.to_vec()
        );
        let queries = opts!(
            "bridgebook_queries",
            "Lists and statistics that wait for their turn (waiting), or have it until their response \
             is encoded (running)."
        );
        let queue_tenants = opts!(
            "bridgebook_queue_tenants",
            "Namespaces whose items wait for a worker (waiting), and those that run apart, because \
             their items time out (apart)."
        );
        let memory_seconds = histogram_opts!(
            "bridgebook_read_memory_wait_seconds",
            "Time that batches wait for the memory of the documents that they read, in seconds.",
            SECONDS.to_vec()
        );
        Ok(WaitMetrics {
            query_seconds: register(registry, Histogram::with_opts(query_seconds)?)?,
            queries: register(registry, IntGaugeVec::new(queries, &["state"])?)?,
            query_owners: register(
                registry,
                IntGauge::new(
                    "bridgebook_query_owners_waiting",
                    "Tokens whose lists and statistics wait for their turn; without tokens, namespaces.",
                )?,
            )?,
            queue_tenants: register(
                registry,
                IntGaugeVec::new(queue_tenants, &["operation", "state"])?,
            )?,
            memory_seconds: register(registry, Histogram::with_opts(memory_seconds)?)?,
            memory_bytes: register(
                registry,
                IntGauge::new(
                    "bridgebook_read_memory_bytes",
                    "Memory reserved for the documents that batches read, until the responses are \
                     encoded.",
                )?,
            )?,
        })
    }

    /// Observes how long a query waited for its turn.
    pub fn query(&self, wait: Duration) {
        self.query_seconds.observe(wait.as_secs_f64());
    }

    /// Observes how long a batch waited for memory.
    pub fn memory(&self, wait: Duration) {
        self.memory_seconds.observe(wait.as_secs_f64());
    }

    /// Sets the numbers of queries that run and that wait, and that of owners whose queries wait.
    pub fn set_queries(&self, running: usize, waiting: usize, owners: usize) {
        self.queries
            .with_label_values(&["running"])
            .set(gauge(running));
        self.queries
            .with_label_values(&["waiting"])
            .set(gauge(waiting));
        self.query_owners.set(gauge(owners));
    }

    /// Sets the numbers of tenants whose items of an operation wait, and that of those apart.
    pub fn set_tenants(&self, operation: &str, waiting: usize, apart: usize) {
        for (state, tenants) in [("waiting", waiting), ("apart", apart)] {
            let metric = self.queue_tenants.with_label_values(&[operation, state]);
            metric.set(gauge(tenants));
        }
    }

    /// Sets the memory that batches have reserved, in bytes.
    pub fn set_memory(&self, bytes: usize) {
        self.memory_bytes.set(gauge(bytes));
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
