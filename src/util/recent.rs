//! A bounded map that keeps what was used last.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, mem};

/// Values by key, of which those that were used last are kept.
///
/// They are in two generations. A value that is used moves to the younger one. Once that is full, it
/// replaces the older one, whose values are forgotten. So nothing has to search for old values, and
/// at least the last `generation` keys that were used are there.
#[derive(Debug)]
pub struct Recent<K, V> {
    younger: HashMap<K, V>,
    older: HashMap<K, V>,
    /// The most keys in a generation.
    generation: usize,
}

impl<K: Hash + Eq, V: Clone + Default> Recent<K, V> {
    /// Makes an empty map, which keeps twice as many keys as fit into a generation.
    #[must_use]
    pub fn new(generation: usize) -> Self {
        Recent {
            younger: HashMap::new(),
            older: HashMap::new(),
            generation,
        }
    }

    /// Returns the value of a key, a default one if it has none, and what is forgotten for it: the
    /// caller can drop that without the lock of the map.
    pub fn value<Q>(&mut self, key: &Q) -> (V, HashMap<K, V>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(value) = self.younger.get(key) {
            return (value.clone(), HashMap::new());
        }
        let (key, value) = match self.older.remove_entry(key) {
            Some(entry) => entry,
            None => (key.to_owned(), V::default()),
        };
        (value.clone(), self.insert(key, value))
    }

    /// Sets the value of a key. Returns what is forgotten for it.
    pub fn insert(&mut self, key: K, value: V) -> HashMap<K, V> {
        self.older.remove(&key);
        let forgotten = match self.younger.len() < self.generation {
            true => HashMap::new(),
            false => mem::replace(&mut self.older, mem::take(&mut self.younger)),
        };
        self.younger.insert(key, value);
        forgotten
    }

    /// Removes a key. Returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let younger = self.younger.remove(key);
        younger.or_else(|| self.older.remove(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_however_many_other_keys_there_are() {
        let mut recent = Recent::<String, u32>::new(8);
        recent.insert("used".into(), 7);
        recent.insert("unused".into(), 7);
        let mut forgotten = 0;
        for key in 0..1000 {
            let (value, dropped) = recent.value(key.to_string().as_str());
            assert_eq!(value, 0);
            forgotten += dropped.len();
            assert_eq!(recent.value("used").0, 7);
        }
        assert!(recent.younger.len() + recent.older.len() <= 16);
        assert!(forgotten >= 1000 - 16, "{forgotten}");
        assert_eq!(recent.remove("unused"), None);
        assert_eq!(recent.remove("used"), Some(7));
        assert_eq!(recent.value("used").0, 0);
    }

    #[test]
    fn a_key_that_is_set_again_has_its_new_value_alone() {
        let mut recent = Recent::<u32, u32>::new(1);
        recent.insert(1, 7);
        recent.insert(2, 7);
        recent.insert(1, 8);
        assert_eq!(recent.remove(&1), Some(8));
        assert_eq!(recent.remove(&1), None);
    }
}
