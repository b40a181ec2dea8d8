//! The series of namespaces and tokens.

use prometheus::{IntCounter, IntCounterVec, Registry, opts};

use crate::ops::metrics::register;

/// Metrics of calls, by namespace or token.
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
    /// Returns how much the call adds to the score of its key.
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

/// The label of the key, and the name and help of each family.
pub(crate) struct Names {
    label: &'static str,
    calls: (&'static str, &'static str),
    items: (&'static str, &'static str),
    rejected: (&'static str, &'static str),
}

/// The families by namespace.
pub(crate) const NAMESPACES: Names = Names {
    label: "namespace",
    calls: (
        "bridgebook_namespace_calls_total",
        "Calls that were admitted, by namespace; those of the busiest tenants, and (others).",
    ),
    items: (
        "bridgebook_namespace_items_total",
        "Items of the calls that were admitted, by namespace; a call without a batch is one.",
    ),
    rejected: (
        "bridgebook_namespace_rejected_total",
        "Calls that a quota rejected once their namespace was known, by namespace.",
    ),
};

/// The families by token.
pub(crate) const TOKENS: Names = Names {
    label: "token_id",
    calls: (
        "bridgebook_token_calls_total",
        "Authenticated calls that no quota rejected, by the id of their token; those of the busiest \
         tokens, and (others).",
    ),
    items: (
        "bridgebook_token_items_total",
        "Items of these calls, by the id of their token; a call with a namespace and without a batch \
         is one.",
    ),
    rejected: (
        "bridgebook_token_rejected_total",
        "Calls that a quota rejected, by the id of their token.",
    ),
};

impl Families {
    /// Registers the families.
    pub(super) fn new(registry: &Registry, names: &Names) -> prometheus::Result<Self> {
        let counter = |(name, help): (&str, &str)| {
            let counter = IntCounterVec::new(opts!(name, help), &[names.label])?;
            register(registry, counter)
        };
        Ok(Families {
            calls: counter(names.calls)?,
            items: counter(names.items)?,
            rejected: counter(names.rejected)?,
        })
    }

    fn all(&self) -> [&IntCounterVec; 3] {
        [&self.calls, &self.items, &self.rejected]
    }

    /// Begins the series of a label.
    pub(super) fn series(&self, label: &str) -> Series {
        let [calls, items, rejected] = self.all().map(|it| it.with_label_values(&[label]));
        Series {
            calls,
            items,
            rejected,
        }
    }

    /// Ends the series of a label.
    pub(super) fn remove(&self, label: &str) {
        for family in self.all() {
            // Fails only if there is no such series.
            let _ = family.remove_label_values(&[label]);
        }
    }
}
