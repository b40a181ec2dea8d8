//! The quotas of all namespaces, or of all tokens, with their usage.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::usage::Usage;
use crate::domain::quota::QuotaLimits;

/// The limits of a tenant or a token, and its usage.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) limits: QuotaLimits,
    pub(super) usage: Arc<Usage>,
}

/// Limits by key. Callers choose namespaces, so the table remembers the usage only of those that
/// are not idle.
#[derive(Debug)]
pub(super) struct Table<K> {
    default: QuotaLimits,
    entries: Mutex<Entries<K>>,
}

#[derive(Debug)]
struct Entries<K> {
    quotas: HashMap<K, QuotaLimits>,
    usage: HashMap<K, Arc<Usage>>,
}

impl<K: Hash + Eq> Table<K> {
    /// Makes a table in which every key has these limits.
    pub(super) fn new(default: QuotaLimits) -> Self {
        let entries = Mutex::new(Entries {
            quotas: HashMap::new(),
            usage: HashMap::new(),
        });
        Table { default, entries }
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
        let quota = self.lock().quotas.get(key).copied();
        quota.unwrap_or(self.default)
    }

    /// Returns the limits of a key and its usage; `None` if it has no limit.
    pub(super) fn find<Q>(&self, key: &Q) -> Option<Limited>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut entries = self.lock();
        let limits = entries.quotas.get(key).copied().unwrap_or(self.default);
        if limits == QuotaLimits::default() {
            return None;
        }
        let usage = match entries.usage.get(key) {
            Some(usage) => Arc::clone(usage),
            None => {
                let usage = Arc::<Usage>::default();
                entries.usage.insert(key.to_owned(), Arc::clone(&usage));
                usage
            }
        };
        Some(Limited { limits, usage })
    }

    /// Replaces all quotas. The usage stays.
    pub(super) fn replace(&self, quotas: HashMap<K, QuotaLimits>) {
        self.lock().quotas = quotas;
    }

    /// Forgets the usage of keys that are idle.
    pub(super) fn forget_idle(&self, now: Instant) {
        let mut entries = self.lock();
        // A call that has just found its usage has not counted itself yet.
        let is_unused = |usage: &Arc<Usage>| Arc::strong_count(usage) == 1;
        entries
            .usage
            .retain(|_, usage| !is_unused(usage) || !usage.lock().is_idle(now));
        entries.usage.shrink_to_fit();
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
