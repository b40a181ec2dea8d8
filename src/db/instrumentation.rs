//! Metrics and spans of the statements of a connection.

use diesel::connection::{Instrumentation, InstrumentationEvent};
use tracing::Span;

use crate::ops::{metrics::PoolMetrics, spans};

/// Counts statements, and records each as a span with its text, but without values.
pub(super) struct StatementObserver {
    metrics: PoolMetrics,
    running: Span,
}

impl StatementObserver {
    pub(super) fn new(metrics: PoolMetrics) -> Self {
        StatementObserver {
            metrics,
            running: Span::none(),
        }
    }
}

impl Instrumentation for StatementObserver {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => self.running = spans::statement(),
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                self.metrics.statements.inc();
                if error.is_some() {
                    self.metrics.failures.inc();
                }
                let span = std::mem::replace(&mut self.running, Span::none());
                if !span.is_disabled() {
                    let text = query.to_string();
                    let verb = text.split_whitespace().next().unwrap_or_default();
                    span.record("otel.name", verb);
                    span.record("db.query.text", &text);
                    if error.is_some() {
                        span.record("otel.status_code", "ERROR");
                    }
                }
            }
            _ => {}
        }
    }
}
