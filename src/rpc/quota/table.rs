//! The quotas of all namespaces, or of all tokens, with their usage.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use super::usage::Usage;
use crate::{
    domain::quota::{QuotaLimits, SetLimits, SubjectLimits},
    util::recent::Recent,
};

/// Half of the namespaces, or tokens, without a quota of their own whose usage is remembered. All
/// together take some 8 MiB, if their names are long. The usage of others begins anew.
const GENERATION: usize = 8192;

/// The limits of a tenant or a token, and its usage.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    pub(super) limits: SubjectLimits,
    pub(super) usage: Arc<Usage>,
}

/// Limits by key.
///
/// The usage of a key with a quota of its own is always remembered. Callers choose namespaces, so of
/// all others only those that were used last are.
#[derive(Debug)]
pub(super) struct Table<K> {
    default: QuotaLimits,
    /// Locked after `others`, where both are.
    quotas: RwLock<HashMap<K, Limited>>,
    others: Mutex<Recent<K, Arc<Usage>>>,
}

impl<K: Hash + Eq> Table<K> {
    /// Makes a table in which every key has these limits.
    pub(super) fn new(default: QuotaLimits) -> Self {
        Table {
            default,
            quotas: RwLock::default(),
            others: Mutex::new(Recent::new(GENERATION)),
        }
    }

    /// Returns the limits of a key that has no quota of its own.
    pub(super) fn default(&self) -> QuotaLimits {
        self.default
    }

    /// Returns the limits of a key.
    pub(super) fn limits<Q>(&self, key: &Q) -> QuotaLimits
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let quotas = self.quotas();
        quotas
            .get(key)
            .map_or(self.default, |quota| quota.limits.limits)
    }

    /// Returns the limits of a key and its usage; `None` if it has no limit.
    pub(super) fn find<Q>(&self, key: &Q) -> Option<Limited>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let has_limit = |limits: &QuotaLimits| *limits != QuotaLimits::default();
        if let Some(quota) = self.own(key) {
            return has_limit(&quota.limits.limits).then_some(quota);
        }
        if !has_limit(&self.default) {
            return None;
        }
        let mut others = self.others();
        // The usage may have moved in the meantime.
        if let Some(quota) = self.own(key) {
            return has_limit(&quota.limits.limits).then_some(quota);
        }
        let (usage, forgotten) = others.value(key);
        drop(others);
        // Takes time, so no other call waits for it.
        drop(forgotten);
        let limits = SubjectLimits {
            limits: self.default,
            set: SetLimits::default(),
        };
        Some(Limited { limits, usage })
    }

    /// Returns the quota of a key that has one of its own.
    fn own<Q>(&self, key: &Q) -> Option<Limited>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.quotas().get(key).cloned()
    }

    /// Replaces all quotas. The usage stays: it moves between `quotas` and `others` under the lock of
    /// `others`, so that a call finds it in one of them.
    pub(super) fn replace(&self, quotas: HashMap<K, SubjectLimits>) {
        let mut others = self.others();
        let next = quotas.into_iter().map(|(key, limits)| {
            let usage = match self.own(&key) {
                Some(quota) => quota.usage,
                None => others.remove(&key).unwrap_or_default(),
            };
            (key, Limited { limits, usage })
        });
        let next = next.collect();
        let last = {
            let mut quotas = self.quotas.write().unwrap_or_else(PoisonError::into_inner);
            mem::replace(&mut *quotas, next)
        };
        let mut forgotten = Vec::new();
        for (key, quota) in last {
            if self.own(&key).is_none() {
                forgotten.push(others.insert(key, quota.usage));
            }
        }
        drop(others);
        drop(forgotten);
    }

    fn quotas(&self) -> RwLockReadGuard<'_, HashMap<K, Limited>> {
        self.quotas.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, Recent<K, Arc<Usage>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn table(calls_in_progress: u32) -> Table<String> {
        Table::new(limits(calls_in_progress))
    }

    fn limits(calls_in_progress: u32) -> QuotaLimits {
        QuotaLimits {
            calls_in_progress: NonZeroU32::new(calls_in_progress),
            ..QuotaLimits::default()
        }
    }

    fn own(calls_in_progress: u32) -> SubjectLimits {
        SubjectLimits {
            limits: limits(calls_in_progress),
            set: SetLimits {
                calls_in_progress: true,
                ..SetLimits::default()
            },
        }
    }

    fn usage(table: &Table<String>, key: &str) -> Arc<Usage> {
        table.find(key).unwrap().usage
    }

    #[test]
    fn the_usage_of_an_operators_quota_survives_a_flood_of_made_up_namespaces() {
        let table = table(1);
        table.replace([("limited".to_owned(), own(2))].into());
        let limited = usage(&table, "limited");
        let other = usage(&table, "other");
        for number in 0..3 * GENERATION {
            usage(&table, &number.to_string());
        }
        assert!(Arc::ptr_eq(&limited, &usage(&table, "limited")));
        assert!(!Arc::ptr_eq(&other, &usage(&table, "other")));
    }

    #[test]
    fn the_usage_stays_when_a_quota_is_set_changed_or_deleted() {
        let table = table(1);
        let before = usage(&table, "a");
        let default = SubjectLimits {
            limits: limits(1),
            set: SetLimits::default(),
        };
        for (quotas, expected) in [
            (HashMap::from([("a".to_owned(), own(2))]), own(2)),
            (HashMap::from([("a".to_owned(), own(3))]), own(3)),
            (HashMap::new(), default),
        ] {
            table.replace(quotas);
            let found = table.find("a").unwrap();
            assert_eq!(found.limits, expected);
            assert_eq!(table.limits("a"), expected.limits);
            assert!(Arc::ptr_eq(&before, &found.usage));
        }
    }

    #[test]
    fn a_call_finds_the_same_usage_while_its_quota_is_set_and_deleted() {
        let table = table(1);
        let expected = usage(&table, "a");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let finder = scope.spawn(|| {
                let found = || usage(&table, "a");
                while !is_done.load(Ordering::Relaxed) {
                    if !Arc::ptr_eq(&expected, &found()) {
                        return false;
                    }
                }
                true
            });
            for _ in 0..20_000 {
                table.replace([("a".to_owned(), own(2))].into());
                table.replace(HashMap::new());
            }
            is_done.store(true, Ordering::Relaxed);
            assert!(finder.join().unwrap(), "a call has found another usage");
        });
    }

    #[test]
    fn a_key_without_a_limit_has_no_usage() {
        let table = table(0);
        assert!(table.find("a").is_none());
        table.replace([("a".to_owned(), own(1)), ("b".to_owned(), own(0))].into());
        assert!(table.find("a").is_some());
        assert!(table.find("b").is_none());
    }
}
