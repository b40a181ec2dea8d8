//! Metrics of calls by namespace and by token, for those that take most.
//!
//! Callers choose namespaces, and there may be many tokens, so only a limited number of either have
//! series of their own. All others share the label `(others)`, which no namespace and no id can be. A
//! call counts under the label that its namespace, or token, has at that time, so a series never goes
//! down while it lasts.
//!
//! Once a minute, the busiest keys without a label take those of the least busy ones, if in the
//! last minutes they took more than twice as much, and a hundred items more. A review moves up to a
//! quarter of the labels, at least one. The series of the latter end, and new ones begin at 0. So
//! labels stay where they are while all tenants call rarely. A tenant that floods the service has a
//! label within a minute, unless more tenants do than a review moves labels.
//!
//! The candidates for a label are found by the space-saving algorithm (Metwally and others, 2005),
//! which needs a bounded number of counters.

mod series;

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt::Display,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::Registry;

use self::series::{Counted, Families, Names, Series};
pub(super) use self::series::{NAMESPACES, TOKENS};

/// The label of all keys without one of their own.
pub(super) const OTHERS: &str = "(others)";
/// The default number of keys with a label of their own.
const DEFAULT_LIMIT: usize = 20;
/// The number of candidates for labels. Each call of a key that is not among them reads all of their
/// counters, so it does not grow with the number of labels.
const CANDIDATES: usize = 256;
/// The part of the labels that a review may move: a quarter, at least one.
const MOVED: usize = 4;
/// How often candidates may take labels: each time three series end and three begin, which
/// Prometheus keeps for as long as all others.
const REVIEW_INTERVAL: Duration = Duration::from_secs(60);
/// The part of its score that a key loses at each review: an eighth. So scores halve in about
/// five minutes, and stand for that time.
const DECAY: u64 = 8;
/// How many times the score of a labelled key a candidate must have to take its label. So labels
/// do not alternate between tenants that are about as busy.
const LEAD: u64 = 2;
/// How much more than that it must have. So chance does not move labels between tenants that call
/// rarely.
const MIN_LEAD: u64 = 100;

/// Metrics of calls by a key: the namespace, or the id of the token. Cheap to clone.
#[derive(Clone)]
pub struct UsageMetrics<K> {
    families: Families,
    top: Arc<Mutex<Top<K>>>,
}

/// The keys that take most.
struct Top<K> {
    limit: usize,
    others: Series,
    labelled: HashMap<K, Labelled>,
    candidates: HashMap<K, Candidate>,
    reviewed_at: Instant,
}

struct Labelled {
    series: Series,
    score: u64,
}

/// A key without a label. Its score is at most `count`, and at least `count - error`.
#[derive(Default)]
struct Candidate {
    count: u64,
    error: u64,
}

impl<K: Hash + Eq + Clone + Display> UsageMetrics<K> {
    pub(super) fn new(registry: &Registry, names: &Names) -> prometheus::Result<Self> {
        let families = Families::new(registry, names)?;
        let top = Top {
            limit: DEFAULT_LIMIT,
            others: families.series(OTHERS),
            labelled: HashMap::new(),
            candidates: HashMap::new(),
            reviewed_at: Instant::now(),
        };
        let top = Arc::new(Mutex::new(top));
        Ok(UsageMetrics { families, top })
    }

    /// Sets the number of keys with a label of their own, before the first call.
    pub fn set_limit(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Counts a call that is admitted.
    pub fn admitted<Q>(&self, key: &Q, items: u32)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let items = items.into();
        self.count(key, &Counted::Call { items }, Instant::now());
    }

    /// Counts a call that a quota rejects.
    pub fn rejected<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.count(key, &Counted::Rejected, Instant::now());
    }

    /// Returns the label of a key in other metrics. Gives it one of its own if one is free.
    pub(super) fn label(&self, key: &K) -> String {
        match self.lock().labelled(key, &self.families) {
            Some(_) => key.to_string(),
            None => OTHERS.to_owned(),
        }
    }

    fn count<Q>(&self, key: &Q, counted: &Counted, now: Instant)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut top = self.lock();
        if now.saturating_duration_since(top.reviewed_at) >= REVIEW_INTERVAL {
            top.review(&self.families);
            top.reviewed_at = now;
        }
        top.count(key, counted, &self.families);
    }

    fn lock(&self) -> MutexGuard<'_, Top<K>> {
        self.top.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone + Display> Top<K> {
    fn count<Q>(&mut self, key: &Q, counted: &Counted, families: &Families)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let score = counted.score();
        if let Some(labelled) = self.labelled(key, families) {
            labelled.score += score;
            labelled.series.count(counted);
        } else {
            self.others.count(counted);
            if self.limit > 0 {
                self.add_to_candidate(key, score);
            }
        }
    }

    /// Returns the label of a key. Gives it one if one is free, else returns `None`.
    fn labelled<Q>(&mut self, key: &Q, families: &Families) -> Option<&mut Labelled>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if self.labelled.len() < self.limit && !self.labelled.contains_key(key) {
            let key = key.to_owned();
            let series = families.series(&key.to_string());
            self.labelled.insert(key, Labelled { series, score: 0 });
        }
        self.labelled.get_mut(key)
    }

    fn add_to_candidate<Q>(&mut self, key: &Q, score: u64)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.count += score;
            return;
        }
        let mut candidate = Candidate::default();
        if self.candidates.len() >= CANDIDATES {
            let least = self.candidates.iter().min_by_key(|(_, it)| it.count);
            let Some((least, count)) = least.map(|(least, it)| (least.clone(), it.count)) else {
                return;
            };
            self.candidates.remove::<K>(&least);
            // The key may have been counted before, and have been dropped.
            candidate.count = count;
            candidate.error = count;
        }
        candidate.count += score;
        self.candidates.insert(key.to_owned(), candidate);
    }

    /// Gives the busiest candidates the labels of the least busy keys, if they are much busier. Lets
    /// all scores decay.
    fn review(&mut self, families: &Families) {
        let moves = (self.limit / MOVED).max(1);
        let moved = (0..moves).take_while(|_| self.move_label(families));
        let _ = moved.count();
        for labelled in self.labelled.values_mut() {
            decay(&mut labelled.score);
        }
        self.candidates.retain(|_, candidate| {
            decay(&mut candidate.count);
            decay(&mut candidate.error);
            candidate.count > 0
        });
    }

    /// Gives the busiest candidate the label of the least busy key. Returns false if it is not busy
    /// enough.
    fn move_label(&mut self, families: &Families) -> bool {
        let least = self.labelled.iter().min_by_key(|(_, it)| it.score);
        let busiest = self.candidates.iter().max_by_key(|(_, it)| it.least());
        let (Some((least, labelled)), Some((busiest, candidate))) = (least, busiest) else {
            return false;
        };
        let score = candidate.least();
        if score <= labelled.score.saturating_mul(LEAD) + MIN_LEAD {
            return false;
        }
        let (least, busiest) = (least.clone(), busiest.clone());
        self.labelled.remove(&least);
        self.candidates.remove(&busiest);
        families.remove(&least.to_string());
        let series = families.series(&busiest.to_string());
        self.labelled.insert(busiest, Labelled { series, score });
        true
    }
}

/// Lets a score decay.
fn decay(score: &mut u64) {
    *score -= score.div_ceil(DECAY);
}

impl Candidate {
    /// Returns the least score that the key may have.
    fn least(&self) -> u64 {
        self.count.saturating_sub(self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(limit: usize) -> UsageMetrics<String> {
        let metrics = UsageMetrics::new(&Registry::new(), &NAMESPACES).unwrap();
        metrics.set_limit(limit);
        metrics
    }

    /// Returns the calls by label.
    fn calls(metrics: &UsageMetrics<String>) -> HashMap<String, u64> {
        let families = prometheus::core::Collector::collect(&metrics.families.calls);
        let series = families.iter().flat_map(|family| family.get_metric());
        let calls = series.map(|it| {
            let label = it.get_label()[0].value().to_owned();
            (label, it.get_counter().get_value() as u64)
        });
        calls.collect()
    }

    fn expected(calls: &[(&str, u64)]) -> HashMap<String, u64> {
        let calls = calls.iter();
        calls
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn tenants_have_labels_as_long_as_there_are_some_left() {
        let metrics = metrics(2);
        for namespace in ["a", "b", "c", "d", "a"] {
            metrics.admitted(namespace, 1);
        }
        metrics.rejected("c");
        assert_eq!(
            calls(&metrics),
            expected(&[("a", 2), ("b", 1), (OTHERS, 2)])
        );
    }

    #[test]
    fn without_labels_all_tenants_are_others() {
        let metrics = metrics(0);
        metrics.admitted("a", 1);
        metrics.count("a", &Counted::Rejected, Instant::now() + REVIEW_INTERVAL);
        assert_eq!(calls(&metrics), expected(&[(OTHERS, 1)]));
    }

    #[test]
    fn a_much_busier_tenant_takes_the_label_of_the_least_busy_one() {
        let metrics = metrics(2);
        metrics.admitted("busy", 50);
        metrics.admitted("idle", 1);
        metrics.admitted("as idle", 2);
        metrics.admitted("newcomer", 103);
        let call = Counted::Call { items: 1 };
        metrics.count("newcomer", &call, Instant::now() + REVIEW_INTERVAL);
        let labels = [("busy", 1), ("newcomer", 1), (OTHERS, 2)];
        assert_eq!(calls(&metrics), expected(&labels));
    }

    #[test]
    fn labels_stay_where_they_are_while_many_tenants_call_rarely() {
        for seconds_between_calls in [1, 7, 60] {
            let metrics = metrics(20);
            let (begin, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
            let mut labels = HashMap::new();
            for second in (0..24 * 3600).step_by(seconds_between_calls) {
                let now = begin + Duration::from_secs(second);
                let tenant = random.u32(0..60).to_string();
                metrics.count(tenant.as_str(), &Counted::Call { items: 1 }, now);
                let labelled = metrics.lock().labelled.contains_key(&tenant);
                assert_eq!(*labels.entry(tenant).or_insert(labelled), labelled);
            }
            assert_eq!(labels.values().filter(|it| **it).count(), 20);
        }
    }

    #[test]
    fn a_review_moves_a_quarter_of_the_labels_and_at_least_one() {
        for (limit, moved_at_once) in [(2, 1), (8, 2)] {
            let metrics = metrics(limit);
            for number in 0..limit {
                metrics.admitted(format!("rare {number}").as_str(), 1);
            }
            for number in 0..limit {
                metrics.admitted(format!("busy {number}").as_str(), 1000);
            }
            let mut now = Instant::now();
            for review in 1..=2 {
                now += REVIEW_INTERVAL;
                metrics.count("busy 0", &Counted::Call { items: 1 }, now);
                let labels = calls(&metrics);
                let moved = labels.keys().filter(|it| it.starts_with("busy"));
                assert_eq!(moved.count(), review * moved_at_once);
                assert_eq!(labels.len(), limit + 1);
            }
        }
    }

    #[test]
    fn a_flood_of_new_namespaces_takes_no_label() {
        let metrics = metrics(2);
        let mut now = Instant::now();
        let call = Counted::Call { items: 1 };
        for round in 0..100 {
            metrics.count("a", &call, now);
            metrics.count("b", &call, now);
            for number in 0..1000 {
                metrics.count(format!("{round}-{number}").as_str(), &call, now);
            }
            now += REVIEW_INTERVAL / 10;
        }
        let labels = [("a", 100), ("b", 100), (OTHERS, 100_000)];
        assert_eq!(calls(&metrics), expected(&labels));
        assert!(metrics.lock().candidates.len() <= CANDIDATES);
    }

    #[test]
    fn a_busy_tenant_is_found_among_a_flood_of_new_namespaces() {
        let metrics = metrics(1);
        let mut now = Instant::now();
        let call = Counted::Call { items: 1 };
        for round in 0..2000 {
            metrics.count("a", &call, now);
            for number in 0..5 {
                metrics.count("busy", &call, now);
                metrics.count(format!("{round}-{number}").as_str(), &call, now);
            }
            now += REVIEW_INTERVAL / 1000;
        }
        assert!(calls(&metrics).contains_key("busy"));
    }
}
