//! Metrics of the feed of the journal.

use std::time::Duration;

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, Registry, opts};

use super::register;

/// Metrics of the feed. Cheap to clone.
#[derive(Clone)]
pub struct FeedMetrics {
    /// The open streams.
    pub watches: IntGauge,
    /// The transitions that streams have sent.
    pub sent: IntCounter,
    /// The reads of the tail.
    pub reads: IntCounter,
    reader_rows: IntCounterVec,
    horizon_age: GaugeVec,
}

impl FeedMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let rows = opts!(
            "bridgebook_feed_rows_total",
            "Rows of the journal that were read for streams: by the tail, once for all streams of a \
             namespace (tail), and by streams that are behind it (pages)."
        );
        let horizon_age = opts!(
            "bridgebook_feed_horizon_age_seconds",
            "Time for which an open transaction has kept new rows of the journal from being sent to \
             streams of single namespaces (namespaces) and of patterns (patterns), in seconds; 0 if none \
             does."
        );
        Ok(FeedMetrics {
            watches: gauge("bridgebook_watches", "Open streams of WatchTransitions.")?,
            sent: counter(
                "bridgebook_watch_transitions_sent_total",
                "Transitions that streams of WatchTransitions have sent.",
            )?,
            reads: counter(
                "bridgebook_feed_reads_total",
                "Reads of the journal by the tail, which finds new rows for all streams.",
            )?,
            reader_rows: register(registry, IntCounterVec::new(rows, &["by"])?)?,
            horizon_age: register(registry, GaugeVec::new(horizon_age, &["watched"])?)?,
        })
    }

    /// Counts rows that the tail has read.
    pub fn read_by_tail(&self, rows: usize) {
        self.reader_rows
            .with_label_values(&["tail"])
            .inc_by(rows as u64);
    }

    /// Counts rows that a stream has read.
    pub fn read_by_page(&self, rows: usize) {
        self.reader_rows
            .with_label_values(&["pages"])
            .inc_by(rows as u64);
    }

    /// Sets how long rows have waited for the horizon, for streams of `namespaces` or `patterns`.
    pub fn set_horizon_age(&self, watched: &str, age: Duration) {
        let age_of = self.horizon_age.with_label_values(&[watched]);
        age_of.set(age.as_secs_f64());
    }
}
