//! The shares of tenants: how much each may add to a batch in its turn.

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

    /// Returns the credit of a tenant for one turn.
    pub(super) fn credit(&self, tenant: &str) -> usize {
        let weights = self.0.read().unwrap_or_else(PoisonError::into_inner);
        QUANTUM * weights.get(tenant).copied().unwrap_or(1)
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
        fn places(&self) -> usize {
            1
        }
        fn weight(&self) -> usize {
            1
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

    #[test]
    fn a_turn_that_is_larger_than_a_batch_leaves_the_next_one_to_others() {
        let weights = Weights::default();
        weights.replace([("heavy".into(), 100)].into());
        let [heavy, light] = shares(&weights);
        // Of 808 jobs in a round, 8 are of the other tenant.
        assert_eq!((heavy + light, light), (9 * 512, 40));
    }
}
