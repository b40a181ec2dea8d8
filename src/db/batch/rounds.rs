//! The order of items in statements: rounds without duplicate keys, and the lock order.

use std::{collections::HashMap, hash::Hash};

/// An item and its index in the batch.
pub type Indexed<'a, T> = (usize, &'a T);

/// Splits items into rounds in which no key occurs twice, for statements that return one
/// row for each key. Items that share a key stay in their order. Most batches are one round.
pub fn rounds<'a, T, K: Hash + Eq, const N: usize>(
    items: &[&'a T],
    keys: impl Fn(&T) -> [K; N],
) -> Vec<Vec<Indexed<'a, T>>> {
    let mut rounds: Vec<Vec<Indexed<'a, T>>> = Vec::new();
    let mut next: HashMap<K, usize> = HashMap::with_capacity(items.len() * N);
    for (index, item) in items.iter().enumerate() {
        let keys = keys(item);
        let round = keys.iter().filter_map(|key| next.get(key).copied()).max();
        let round = round.unwrap_or(0);
        for key in keys {
            next.insert(key, round + 1);
        }
        match rounds.get_mut(round) {
            Some(items) => items.push((index, item)),
            None => rounds.push(vec![(index, item)]),
        }
    }
    rounds
}

/// Returns the answers of all rounds in the order of the batch.
pub fn in_order<A>(mut answers: Vec<(usize, A)>) -> Vec<A> {
    answers.sort_unstable_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Sorts changes by the key of the row that they change, and marks each change that is the
/// last one of its row. Changes of one row stay in their order.
///
/// All statements lock rows of a kind in the order of their keys. Otherwise statements of two
/// replicas, or an append and a delete, could deadlock.
pub fn in_lock_order<T, K: Ord>(mut changes: Vec<T>, key: impl Fn(&T) -> K) -> Vec<(T, bool)> {
    changes.sort_by_key(&key);
    let keys: Vec<K> = changes.iter().map(key).collect();
    let next = keys.iter().skip(1).map(Some).chain([None]);
    let is_last: Vec<bool> = keys
        .iter()
        .zip(next)
        .map(|(key, next)| next != Some(key))
        .collect();
    changes.into_iter().zip(is_last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(items: &[[char; 2]]) -> Vec<Vec<usize>> {
        let items: Vec<_> = items.iter().collect();
        let rounds = rounds(&items, |keys| *keys);
        let rounds = rounds.iter();
        rounds
            .map(|round| round.iter().map(|(index, _)| *index).collect())
            .collect()
    }

    #[test]
    fn no_key_occurs_twice_in_a_round() {
        assert_eq!(indexes(&[['a', 'b'], ['c', 'd']]), [vec![0, 1]]);
        assert_eq!(
            indexes(&[['a', 'b'], ['a', 'c'], ['c', 'd'], ['e', 'f']]),
            [vec![0, 3], vec![1], vec![2]]
        );
    }

    #[test]
    fn the_last_change_of_each_row_is_marked() {
        let changes = vec![('b', 1), ('a', 1), ('b', 2), ('c', 1)];
        assert_eq!(
            in_lock_order(changes, |(key, _)| *key),
            [
                (('a', 1), true),
                (('b', 1), false),
                (('b', 2), true),
                (('c', 1), true)
            ]
        );
    }
}
