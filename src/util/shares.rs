//! Shares of a limited resource, such as slots or bytes, so that no owner takes all of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A number of units for all owners, such as tokens or addresses.
///
/// An owner may hold as many units as it leaves free, or a multiple of them. One alone gets half of
/// them, the next one half of the rest. So an owner that holds its units for long leaves some to
/// others. One without units may take any that are free.
pub struct Shares<K> {
    limit: usize,
    per_free: usize,
    /// The units of all owners. Changes under the lock, and is read without it: most calls find enough
    /// free units for any owner.
    taken: AtomicUsize,
    /// The units of each owner. No owner has none.
    by_owner: Mutex<HashMap<K, usize>>,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// Makes `limit` free units. An owner may hold as many as it leaves free.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Shares::with_multiple(limit, 1)
    }

    /// Makes `limit` free units. An owner may hold `per_free` for each unit that it leaves free.
    #[must_use]
    pub fn with_multiple(limit: usize, per_free: usize) -> Arc<Self> {
        Arc::new(Shares {
            limit,
            per_free,
            taken: AtomicUsize::new(0),
            by_owner: Mutex::default(),
        })
    }

    /// Takes units for an owner, until the returned value is dropped. Returns `None` if its share has
    /// not as many.
    #[must_use]
    pub fn take(self: &Arc<Self>, owner: K, units: usize) -> Option<Share<K>> {
        let mut by_owner = self.by_owner();
        let held = self.held_with(&by_owner, owner, units)?;
        by_owner.insert(owner, held);
        self.taken.fetch_add(units, Ordering::Relaxed);
        Some(Share {
            shares: Arc::clone(self),
            owner,
            units,
        })
    }

    /// Returns whether an owner could take one more unit.
    #[must_use]
    pub fn has_room(&self, owner: K) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        // An owner holds no more than all of them.
        let has_room = |free| taken < self.max_of(free);
        self.free_after(1).is_some_and(has_room)
            || self.held_with(&self.by_owner(), owner, 1).is_some()
    }

    /// Returns whether no unit is free.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit
    }

    /// Returns how many units an owner would hold with more of them, if it may.
    fn held_with(&self, by_owner: &HashMap<K, usize>, owner: K, units: usize) -> Option<usize> {
        let free = self.free_after(units)?;
        let held = by_owner.get(&owner).copied().unwrap_or_default();
        let is_first = held == 0;
        let held = held.saturating_add(units);
        (is_first || held <= self.max_of(free)).then_some(held)
    }

    /// Returns how many units are free after more of them are taken, if there are enough.
    fn free_after(&self, units: usize) -> Option<usize> {
        let taken = self.taken.load(Ordering::Relaxed);
        self.limit.saturating_sub(taken).checked_sub(units)
    }

    /// Returns how many units an owner may hold that leaves this many free.
    fn max_of(&self, free: usize) -> usize {
        free.saturating_mul(self.per_free)
    }

    fn by_owner(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Units of an owner, until they are dropped.
pub struct Share<K: Copy + Eq + Hash> {
    shares: Arc<Shares<K>>,
    owner: K,
    units: usize,
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut by_owner = self.shares.by_owner();
        self.shares.taken.fetch_sub(self.units, Ordering::Relaxed);
        if let Entry::Occupied(mut own) = by_owner.entry(self.owner) {
            *own.get_mut() = own.get().saturating_sub(self.units);
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &Arc<Shares<u8>>, owner: u8) -> Vec<Share<u8>> {
        std::iter::from_fn(|| shares.take(owner, 1)).collect()
    }

    #[test]
    fn an_owner_leaves_as_many_units_as_it_takes() {
        let shares = Shares::new(512);
        let first = take_all(&shares, 1);
        let second = take_all(&shares, 2);
        let third = take_all(&shares, 3);
        let counts = [&first, &second, &third].map(Vec::len);
        assert_eq!(counts, [256, 128, 64]);
        assert!(!shares.has_room(3) && shares.has_room(4));
        drop(second);
        assert!(!take_all(&shares, 4).is_empty());
        drop((first, third));
        assert_eq!(take_all(&shares, 1).len(), 256);
        assert!(shares.by_owner().is_empty());
    }

    #[test]
    fn an_owner_leaves_a_part_of_what_it_takes() {
        for (limit, expected) in [(100, [80, 16, 3]), (5, [4, 1, 0]), (1, [1, 0, 0])] {
            let shares = Shares::with_multiple(limit, 4);
            let taken = [1, 2, 3].map(|owner| take_all(&shares, owner));
            assert_eq!(taken.each_ref().map(Vec::len), expected, "{limit}");
            assert_eq!(shares.is_full(), limit < 100);
        }
    }

    #[test]
    fn an_owner_takes_no_more_units_than_are_free() {
        let shares = Shares::new(10);
        let first = shares.take(1, 8);
        assert!(first.is_some() && shares.take(2, 3).is_none());
        assert!(shares.take(2, 2).is_some());
    }
}
