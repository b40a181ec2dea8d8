//! The shares of tenants: how many turns each has in a round.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// The weight of jobs that a tenant may add to a batch in one turn. With 64 tenants, each has a
/// turn in every batch of 512.
pub(super) const QUANTUM: usize = 8;

/// The weights of tenants that have another one than 1. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Weights(Arc<RwLock<HashMap<String, usize>>>);

impl Weights {
    /// Replaces all weights.
    pub fn replace(&self, weights: HashMap<String, usize>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = weights;
    }

    /// Returns the number of turns that a tenant has in a round.
    pub(super) fn of(&self, tenant: &str) -> usize {
        let weights = self.0.read().unwrap_or_else(PoisonError::into_inner);
        weights.get(tenant).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::batch::fair_queue::{FairQueue, Queueable};

    struct Job(&'static str);

    impl Queueable for Job {
        fn tenant(&self) -> &str {
            self.0
        }
        fn slots(&self) -> usize {
            1
        }
        fn weight(&self) -> usize {
            1
        }
        fn is_begun(&self) -> bool {
            false
        }
    }

    /// Returns how many jobs of each of two tenants the next batches have.
    fn shares(weights: &Weights) -> [usize; 2] {
        let mut queue = FairQueue::new(100_000, weights.clone());
        for _ in 0..10_000 {
            queue.push(Job("heavy"));
            queue.push(Job("light"));
        }
        let jobs: Vec<Job> = (0..9).flat_map(|_| queue.take(512)).collect();
        ["heavy", "light"].map(|tenant| jobs.iter().filter(|job| job.0 == tenant).count())
    }

    #[test]
    fn a_tenant_gets_its_weight_in_turns_while_others_wait() {
        let weights = Weights::default();
        assert_eq!(shares(&weights), [9 * 256, 9 * 256]);
        weights.replace([("heavy".into(), 3)].into());
        assert_eq!(shares(&weights), [9 * 384, 9 * 128]);
    }

    /// Returns weights in which a tenant has the largest one.
    fn largest(tenant: &str) -> Weights {
        let weights = Weights::default();
        weights.replace([(tenant.to_owned(), 100)].into());
        weights
    }

    #[test]
    fn the_largest_weight_is_many_turns_and_not_a_long_one() {
        let [heavy, light] = shares(&largest("heavy"));
        // In a round of 808 jobs, the other tenant has the second turn.
        assert_eq!((heavy, light), (9 * 512 - 6 * 8, 6 * 8));
    }

    #[test]
    fn a_newcomer_waits_for_one_turn_of_a_tenant_with_the_largest_weight() {
        let mut queue = FairQueue::new(100_000, largest("heavy"));
        (0..10_000).for_each(|_| queue.push(Job("heavy")));
        for taken in [1, 7, 512, 100, 300] {
            queue.take(taken);
            queue.push(Job("light"));
            let batch = queue.take(512);
            let position = batch.iter().position(|job| job.0 == "light");
            assert!(position.is_some_and(|it| it <= QUANTUM), "{position:?}");
        }
    }

    #[test]
    fn newcomers_do_not_keep_a_tenant_from_its_next_turn() {
        let names: Vec<&str> = (0..5000).map(|it| &*it.to_string().leak()).collect();
        let mut queue = FairQueue::new(100_000, Weights::default());
        (0..1000).for_each(|_| queue.push(Job("backlog")));
        let mut done = 0;
        // As many newcomers as a batch has room for.
        for names in names.chunks(100) {
            names.iter().for_each(|name| queue.push(Job(name)));
            let batch = queue.take(100);
            done += batch.iter().filter(|job| job.0 == "backlog").count();
        }
        // A turn in every second or third of 50 batches.
        assert!(done >= 16 * QUANTUM, "{done}");
    }
}
