//! What is seen of the statements of a connection.

use diesel::connection::{Instrumentation, InstrumentationEvent};

use crate::metrics::PoolMetrics;

/// Counts statements.
pub(super) struct Watcher {
    metrics: PoolMetrics,
}

impl Watcher {
    pub(super) fn new(metrics: PoolMetrics) -> Self {
        Watcher { metrics }
    }
}

impl Instrumentation for Watcher {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::FinishQuery { error, .. } = event {
            self.metrics.statements.inc();
            if error.is_some() {
                self.metrics.failures.inc();
            }
        }
    }
}
