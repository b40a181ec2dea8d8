//! Metrics of the batch writer: batch sizes, waiting times and durations.

use prometheus::{Histogram, HistogramVec, IntGauge, IntGaugeVec, Registry, histogram_opts, opts};

use super::register;

/// Buckets from a single item to the most that a worker takes.
const ITEMS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// Buckets from a negligible wait to one at which callers give up.
pub(super) const SECONDS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

const LABELS: &[&str] = &["operation"];

/// Metrics of batches, by operation.
pub(super) struct BatchMetrics {
    items: HistogramVec,
    wait_seconds: HistogramVec,
    seconds: HistogramVec,
    queued: IntGaugeVec,
}

/// Metrics of the batches of one operation.
#[derive(Clone)]
pub struct OperationMetrics {
    /// The items of a batch.
    pub items: Histogram,
    /// How long items wait for a worker, in seconds.
    pub wait_seconds: Histogram,
    /// The duration of a batch including retries, in seconds.
    pub seconds: Histogram,
    /// The items that wait or are being written.
    pub queued: IntGauge,
}

impl BatchMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let items = histogram_opts!(
            "bridgebook_batch_items",
            "Items in a batch: one statement and one commit.",
            ITEMS.to_vec()
        );
        let wait_seconds = histogram_opts!(
            "bridgebook_batch_wait_seconds",
            "Time that items wait for a worker, in seconds.",
            SECONDS.to_vec()
        );
        let seconds = histogram_opts!(
            "bridgebook_batch_seconds",
            "Duration of a batch including its retries, in seconds.",
            SECONDS.to_vec()
        );
        let queued = opts!(
            "bridgebook_queue_items",
            "Items that wait for a worker or are being written."
        );
        Ok(BatchMetrics {
            items: register(registry, HistogramVec::new(items, LABELS)?)?,
            wait_seconds: register(registry, HistogramVec::new(wait_seconds, LABELS)?)?,
            seconds: register(registry, HistogramVec::new(seconds, LABELS)?)?,
            queued: register(registry, IntGaugeVec::new(queued, LABELS)?)?,
        })
    }

    pub(super) fn operation(&self, name: &str) -> OperationMetrics {
        OperationMetrics {
            items: self.items.with_label_values(&[name]),
            wait_seconds: self.wait_seconds.with_label_values(&[name]),
            seconds: self.seconds.with_label_values(&[name]),
            queued: self.queued.with_label_values(&[name]),
        }
    }
}
