//! The series of tenants.

use prometheus::{IntCounter, IntCounterVec, Registry, opts};

use crate::ops::metrics::register;

/// Metrics of calls, by namespace.
#[derive(Clone)]
pub(super) struct Families {
    pub(super) calls: IntCounterVec,
    items: IntCounterVec,
    rejected: IntCounterVec,
}

/// The series of a label.
pub(super) struct Series {
    calls: IntCounter,
    items: IntCounter,
    rejected: IntCounter,
}

/// The way in which a call counts.
pub(super) enum Counted {
    Call { items: u64 },
    Rejected,
}

impl Counted {
    /// Returns how much the call adds to the score of its tenant.
    pub(super) fn score(&self) -> u64 {
        match self {
            Counted::Call { items } => (*items).max(1),
            Counted::Rejected => 1,
        }
    }
}

impl Series {
    /// Counts a call.
    pub(super) fn count(&self, counted: &Counted) {
        match counted {
            Counted::Call { items } => {
                self.calls.inc();
                self.items.inc_by(*items);
            }
            Counted::Rejected => self.rejected.inc(),
        }
    }
}

impl Families {
    /// Registers the families.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help: &str| {
            register(
                registry,
                IntCounterVec::new(opts!(name, help), &["namespace"])?,
            )
        };
        Ok(Families {
            calls: counter(
                "bridgebook_namespace_calls_total",
                "Calls that were admitted, by namespace; those of the busiest tenants, and (others).",
            )?,
            items: counter(
                "bridgebook_namespace_items_total",
                "Items of the calls that were admitted, by namespace; a call without a batch is one.",
            )?,
            rejected: counter(
                "bridgebook_namespace_rejected_total",
                "Calls that a quota rejected once their namespace was known, by namespace.",
            )?,
        })
    }

    fn all(&self) -> [&IntCounterVec; 3] {
        [&self.calls, &self.items, &self.rejected]
    }

    /// Begins the series of a label.
    pub(super) fn series(&self, namespace: &str) -> Series {
        let [calls, items, rejected] = self.all().map(|it| it.with_label_values(&[namespace]));
        Series {
            calls,
            items,
            rejected,
        }
    }

    /// Ends the series of a label.
    pub(super) fn remove(&self, namespace: &str) {
        for family in self.all() {
            // Fails only if there is no such series.
            let _ = family.remove_label_values(&[namespace]);
        }
    }
}
