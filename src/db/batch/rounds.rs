//! Splits a batch into rounds, for statements that can say only once what
//! became of a key.

use std::{collections::HashMap, hash::Hash};

/// An item and its place in the batch.
pub type Indexed<'a, T> = (usize, &'a T);

/// Splits items into rounds in none of which a key occurs twice, keeping the
/// order of items that share one. Most batches are one round.
pub fn rounds<'a, T, K: Hash + Eq, const N: usize>(
    items: &[&'a T],
    keys: impl Fn(&T) -> [K; N],
) -> Vec<Vec<Indexed<'a, T>>> {
    let mut rounds: Vec<Vec<Indexed<'a, T>>> = Vec::new();
    let mut next: HashMap<K, usize> = HashMap::with_capacity(items.len() * N);
    for (place, item) in items.iter().enumerate() {
        let keys = keys(item);
        let round = keys.iter().filter_map(|key| next.get(key).copied()).max();
        let round = round.unwrap_or(0);
        for key in keys {
            next.insert(key, round + 1);
        }
        match rounds.get_mut(round) {
            Some(items) => items.push((place, item)),
            None => rounds.push(vec![(place, item)]),
        }
    }
    rounds
}

/// Puts the answers of all rounds into the order of the batch.
pub fn in_order<A>(mut answers: Vec<(usize, A)>) -> Vec<A> {
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(items: &[[char; 2]]) -> Vec<Vec<usize>> {
        let items: Vec<_> = items.iter().collect();
        let rounds = rounds(&items, |keys| *keys);
        let rounds = rounds.iter();
        rounds
            .map(|round| round.iter().map(|(place, _)| *place).collect())
            .collect()
    }

    #[test]
    fn no_key_occurs_twice_in_a_round() {
        assert_eq!(places(&[['a', 'b'], ['c', 'd']]), [vec![0, 1]]);
        assert_eq!(
            places(&[['a', 'b'], ['a', 'c'], ['c', 'd'], ['e', 'f']]),
            [vec![0, 3], vec![1], vec![2]]
        );
    }
}
