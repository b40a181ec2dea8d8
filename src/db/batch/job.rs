//! The jobs of a worker.

use prometheus::IntGauge;
use tokio::{sync::oneshot, time::Instant};
use tracing::Span;

use super::{BYTES_PER_WEIGHT, Operation, Results, fair_queue::Queueable};
use crate::ops::metrics::OperationMetrics;

/// Some items of one call, which run in one batch.
pub(super) struct Job<O: Operation> {
    pub(super) items: Vec<O::Item>,
    reply: oneshot::Sender<Results<O>>,
    pub(super) queued_at: Instant,
    /// The span of the call, which the span of the batch links to.
    pub(super) span: Span,
    _queued: Queued,
}

impl<O: Operation> Job<O> {
    /// Makes a job of items of one tenant.
    pub(super) fn new(
        items: Vec<O::Item>,
        reply: oneshot::Sender<Results<O>>,
        metrics: &OperationMetrics,
    ) -> Self {
        let queued = Queued::new(&metrics.queued, items.len());
        Job {
            items,
            reply,
            queued_at: Instant::now(),
            span: Span::current(),
            _queued: queued,
        }
    }

    /// Returns whether the caller still waits for the answers.
    pub(super) fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    /// Answers the caller, which may be gone by now.
    pub(super) fn answer(self, results: Results<O>) {
        let _ = self.reply.send(results);
    }
}

impl<O: Operation> Queueable for Job<O> {
    /// The items of a call have the same tenant.
    fn tenant(&self) -> &str {
        self.items.first().map_or("", O::tenant)
    }

    fn places(&self) -> usize {
        self.items.len()
    }

    fn weight(&self) -> usize {
        let bytes: usize = self.items.iter().map(O::document_bytes).sum();
        self.items.len() + bytes / BYTES_PER_WEIGHT
    }
}

/// Counts items as queued until it is dropped.
struct Queued(IntGauge, i64);

impl Queued {
    fn new(gauge: &IntGauge, items: usize) -> Self {
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        gauge.add(items);
        Queued(gauge.clone(), items)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.sub(self.1);
    }
}
