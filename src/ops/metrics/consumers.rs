//! Metrics of bridges that consume the journal.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{GaugeVec, Registry, opts};

use super::{
    register,
    usage::{OTHERS, UsageMetrics},
};

/// How far bridges are behind the journal, by namespace. Namespaces have the same labels as in the
/// metrics of calls. Cheap to clone.
#[derive(Clone)]
pub struct ConsumerMetrics {
    lag: GaugeVec,
    namespaces: UsageMetrics<String>,
    /// The labels that have series.
    labels: Arc<Mutex<HashSet<String>>>,
}

impl ConsumerMetrics {
    pub(super) fn new(
        registry: &Registry,
        namespaces: &UsageMetrics<String>,
    ) -> prometheus::Result<Self> {
        let lag = GaugeVec::new(
            opts!(
                "bridgebook_consumer_lag_seconds",
                "Age of the oldest journal row that the slowest consuming bridge of a namespace has \
                 not consumed at the last poll, in seconds; the same in all replicas."
            ),
            &["namespace"],
        )?;
        let metrics = ConsumerMetrics {
            lag: register(registry, lag)?,
            namespaces: namespaces.clone(),
            labels: Arc::default(),
        };
        metrics.set_lags([]);
        Ok(metrics)
    }

    /// Sets the lags of all namespaces that have consuming bridges, in seconds. The label of those
    /// without one of their own has the greatest. The series of other namespaces end.
    pub fn set_lags(&self, lags: impl IntoIterator<Item = (String, f64)>) {
        let mut by_label = HashMap::from([(OTHERS.to_owned(), 0.0_f64)]);
        for (namespace, lag) in lags {
            let greatest = by_label
                .entry(self.namespaces.label(&namespace))
                .or_default();
            *greatest = greatest.max(lag);
        }
        for (label, lag) in &by_label {
            self.lag.with_label_values(&[label]).set(*lag);
        }
        let labels = by_label.into_keys().collect();
        let mut known = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        for ended in known.difference(&labels) {
            // Fails only if there is no such series.
            let _ = self.lag.remove_label_values(&[ended]);
        }
        *known = labels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::usage::NAMESPACES;

    #[test]
    fn each_namespace_has_its_lag_while_labels_are_left() {
        let registry = Registry::new();
        let namespaces = UsageMetrics::new(&registry, &NAMESPACES).unwrap();
        namespaces.set_limit(2);
        let metrics = ConsumerMetrics::new(&registry, &namespaces).unwrap();
        let lags = |lags: &[(&str, f64)]| {
            let lags = lags.iter().map(|(name, lag)| ((*name).to_owned(), *lag));
            metrics.set_lags(lags);
            let families = prometheus::core::Collector::collect(&metrics.lag);
            let series = families.iter().flat_map(|family| family.get_metric());
            let mut found: Vec<_> = series
                .map(|it| {
                    (
                        it.get_label()[0].value().to_owned(),
                        it.get_gauge().get_value(),
                    )
                })
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found
        };
        let others = |lag| (OTHERS.to_owned(), lag);
        assert_eq!(lags(&[]), [others(0.0)]);
        let all = lags(&[("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 3.0)]);
        let expected = [others(4.0), ("a".into(), 1.0), ("b".into(), 2.0)];
        assert_eq!(all, expected);
        assert_eq!(lags(&[("b", 5.0)]), [others(0.0), ("b".into(), 5.0)]);
    }
}
