//! The readers of a group by their filters, so that a row finds those that want it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
};

use uuid::Uuid;

use super::scope::{Fields, TransitionMatch};
use crate::db::journal::Transition;

/// The readers of a group. A row is looked up once for each set of fields that filters name, however many
/// filters there are.
#[derive(Default)]
pub(super) struct Filters {
    by_match: HashMap<TransitionMatch, Readers>,
    /// The sets of fields, and how many filters name each.
    fields: BTreeMap<Fields, usize>,
}

/// The readers with one filter.
#[derive(Default)]
struct Readers {
    count: usize,
    /// Those that wait for a row.
    waiting: HashSet<u64>,
}

impl Filters {
    /// Adds a reader, which waits for a row.
    pub(super) fn insert(&mut self, wanted: &TransitionMatch, reader: u64) {
        let readers = self.by_match.entry(wanted.clone()).or_default();
        if readers.count == 0 {
            *self.fields.entry(wanted.fields()).or_default() += 1;
        }
        readers.count += 1;
        readers.waiting.insert(reader);
    }

    /// Lets a reader wait for a row again.
    pub(super) fn wait(&mut self, wanted: &TransitionMatch, reader: u64) {
        if let Some(readers) = self.by_match.get_mut(wanted) {
            readers.waiting.insert(reader);
        }
    }

    /// Removes a reader.
    pub(super) fn remove(&mut self, wanted: &TransitionMatch, reader: u64) {
        let Some(readers) = self.by_match.get_mut(wanted) else {
            return;
        };
        readers.waiting.remove(&reader);
        readers.count -= 1;
        if readers.count > 0 {
            return;
        }
        self.by_match.remove(wanted);
        let fields = wanted.fields();
        if let Some(count) = self.fields.get_mut(&fields) {
            *count -= 1;
            if *count == 0 {
                self.fields.remove(&fields);
            }
        }
    }

    /// Returns the readers that wait for a row such as this one. They no longer wait.
    pub(super) fn take(&mut self, row: &Transition) -> Vec<u64> {
        let mut taken = Vec::new();
        for fields in self.fields.keys() {
            let wanted = TransitionMatch::of(row, *fields);
            if let Some(readers) = self.by_match.get_mut(&wanted) {
                taken.extend(mem::take(&mut readers.waiting));
            }
        }
        taken
    }

    /// Returns the entities that the filters name; `None` if there are more than `max`, or if a filter
    /// names none.
    pub(super) fn entity_ids(&self, max: usize) -> Option<Vec<Uuid>> {
        if self.by_match.len() > max || !self.fields.keys().all(|it| it.entity_id) {
            return None;
        }
        self.by_match.keys().map(|it| it.entity_id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_state(state: &str) -> TransitionMatch {
        TransitionMatch {
            to_state: Some(state.to_owned()),
            ..TransitionMatch::default()
        }
    }

    fn of_entity(entity_id: Uuid) -> TransitionMatch {
        TransitionMatch {
            entity_id: Some(entity_id),
            ..TransitionMatch::default()
        }
    }

    #[test]
    fn a_row_finds_the_waiting_readers_that_want_it() {
        let row = Transition::for_test("PAID");
        let mut filters = Filters::default();
        let all = TransitionMatch::default();
        let wanted = [
            all.clone(),
            of_state("PAID"),
            of_state("NEW"),
            of_entity(row.entity_id),
            of_entity(Uuid::nil()),
            TransitionMatch {
                entity_type: Some("invoice".to_owned()),
                ..of_state("PAID")
            },
        ];
        for (reader, wanted) in (0..).zip(&wanted) {
            filters.insert(wanted, reader);
            assert_eq!(wanted.matches(&row), [0, 1, 3].contains(&reader));
        }
        let take = |filters: &mut Filters| {
            let mut taken = filters.take(&row);
            taken.sort_unstable();
            taken
        };
        assert_eq!(take(&mut filters), [0, 1, 3]);
        assert_eq!(take(&mut filters), [0; 0], "they no longer wait");
        filters.wait(&wanted[1], 1);
        filters.insert(&all, 6);
        filters.remove(&all, 0);
        assert_eq!(take(&mut filters), [1, 6]);
    }

    #[test]
    fn the_entities_of_filters_are_known_if_all_name_one() {
        let mut filters = Filters::default();
        let ids = [1, 2].map(Uuid::from_u128);
        filters.insert(&of_entity(ids[0]), 0);
        filters.insert(&of_entity(ids[1]), 1);
        let mut found = filters.entity_ids(2).unwrap();
        found.sort_unstable();
        assert_eq!(found, ids);
        assert_eq!(filters.entity_ids(1), None);
        filters.insert(&of_state("NEW"), 2);
        assert_eq!(filters.entity_ids(3), None);
        filters.remove(&of_state("NEW"), 2);
        assert!(filters.entity_ids(3).is_some());
    }
}
