//! The queue of a worker, in which tenants take turns.
//!
//! The turns are a deficit round robin: in each turn a tenant gets a [credit](QUANTUM), and its
//! oldest jobs go into the batch as long as the credit covers their weight. So a job waits
//! for the [turns](TurnOrder) of the other tenants, but not for all jobs of a tenant with a backlog.
//!
//! The slots of the queue are shared, too: a tenant may take as many as are still free. One
//! tenant alone gets half of them, the next one half of the rest. So a few tenants with a backlog
//! leave slots to newcomers.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{
    turn_order::TurnOrder,
    weights::{QUANTUM, Weights},
};

/// A job that waits in a queue.
pub(super) trait Queueable {
    /// Returns the tenant.
    fn tenant(&self) -> &str;
    /// Returns the number of slots that the job takes.
    fn slots(&self) -> usize;
    /// Returns the share of a batch that the job takes.
    fn weight(&self) -> usize;
    /// Returns whether a batch has answered a part of the job.
    fn is_begun(&self) -> bool;
}

/// Jobs by tenant.
pub(super) struct FairQueue<J> {
    by_tenant: HashMap<Arc<str>, TenantQueue<J>>,
    /// The tenants that have jobs and are not apart.
    turns: TurnOrder,
    max_slots: usize,
    /// The slots of all jobs.
    slots: usize,
    weights: Weights,
}

struct TenantQueue<J> {
    jobs: VecDeque<J>,
    /// The slots of the jobs.
    slots: usize,
    credit: usize,
    /// The turns left in this round, with the one that has begun.
    turns: usize,
    /// Whether the turn began in an earlier batch, which was full before it ended.
    is_in_turn: bool,
    /// Notified of each new job, if the tenant is apart.
    apart: Option<Arc<Notify>>,
}

impl<J: Queueable> FairQueue<J> {
    /// Makes an empty queue.
    pub(super) fn new(slots: usize, weights: Weights) -> Self {
        FairQueue {
            by_tenant: HashMap::new(),
            turns: TurnOrder::default(),
            max_slots: slots,
            slots: 0,
            weights,
        }
    }

    /// Returns whether this number of slots is within a tenant's share.
    pub(super) fn has_room(&self, tenant: &str, slots: usize) -> bool {
        let taken = self.by_tenant.get(tenant).map_or(0, |queue| queue.slots);
        taken + slots <= self.max_slots.saturating_sub(self.slots)
    }

    /// Adds a job, for which there must be room.
    pub(super) fn push(&mut self, job: J) {
        let slots = job.slots();
        let tenant = self.name_of(&job);
        let queue = self.by_tenant.entry(Arc::clone(&tenant)).or_default();
        self.slots += slots;
        queue.slots += slots;
        let was_empty = queue.jobs.is_empty();
        queue.jobs.push_back(job);
        match &queue.apart {
            Some(arrived) => arrived.notify_one(),
            None if was_empty => queue.turns = usize::from(self.turns.join(tenant)),
            None => {}
        }
    }

    /// Takes the jobs of the next batch: up to `max` of weight, or one job that is heavier.
    pub(super) fn take(&mut self, max: usize) -> Vec<J> {
        let mut taken = Vec::new();
        let mut left = max;
        while left > 0
            && let Some(tenant) = self.turns.first()
            && let Some(queue) = self.by_tenant.get_mut(&tenant)
        {
            if !queue.is_in_turn {
                if queue.turns == 0 {
                    queue.turns = self.weights.of(&tenant);
                }
                queue.credit += QUANTUM;
                queue.is_in_turn = true;
            }
            let (slots, weight) = queue.take_turn(left, taken.is_empty(), &mut taken);
            self.slots -= slots;
            left = left.saturating_sub(weight);
            if queue.is_in_turn {
                // Its next job does not fit, so its turn goes on as the first one of the next batch.
                break;
            }
            queue.turns = queue.turns.saturating_sub(1);
            if queue.jobs.is_empty() {
                self.turns.leave();
                self.by_tenant.remove(&tenant);
            } else {
                self.turns.end_turn(queue.turns > 0);
            }
        }
        taken
    }

    /// Puts back jobs of a batch that did not run, or only in part. Tenants have the next turns if
    /// none of their jobs ran in part; for the others, that was a turn.
    pub(super) fn put_back(&mut self, jobs: Vec<J>) {
        let begun = jobs.iter().filter(|job| job.is_begun());
        let begun: HashSet<Arc<str>> = begun.map(|job| self.name_of(job)).collect();
        for job in jobs.into_iter().rev() {
            let (slots, weight) = (job.slots(), job.weight());
            let tenant = self.name_of(&job);
            let queue = self.by_tenant.entry(Arc::clone(&tenant)).or_default();
            self.slots += slots;
            queue.slots += slots;
            let was_empty = queue.jobs.is_empty();
            queue.jobs.push_front(job);
            if let Some(arrived) = &queue.apart {
                arrived.notify_one();
            } else if begun.contains(&tenant) {
                if was_empty {
                    queue.turns = usize::from(self.turns.join(tenant));
                }
            } else {
                // Not more than a turn, but enough for its next job.
                queue.credit = (queue.credit + weight).min(QUANTUM.max(weight));
                if !queue.is_in_turn {
                    queue.is_in_turn = true;
                    queue.turns += 1;
                }
                self.turns.put_first(tenant, was_empty);
            }
        }
    }

    /// Adds the tenants whose jobs wait, and those that are apart.
    pub(super) fn tenants(&self, waiting: &mut HashSet<Arc<str>>, apart: &mut HashSet<Arc<str>>) {
        for (tenant, queue) in &self.by_tenant {
            if !queue.jobs.is_empty() {
                waiting.insert(Arc::clone(tenant));
            }
            if queue.apart.is_some() {
                apart.insert(Arc::clone(tenant));
            }
        }
    }

    /// Returns the name of a job's tenant, which all of its jobs share.
    fn name_of(&self, job: &J) -> Arc<str> {
        match self.by_tenant.get_key_value(job.tenant()) {
            Some((tenant, _)) => Arc::clone(tenant),
            None => Arc::from(job.tenant()),
        }
    }

    /// Sets a tenant apart: [`FairQueue::take`] passes it over. Returns the
    /// `Notify` that each new job signals.
    pub(super) fn set_apart(&mut self, tenant: Arc<str>) -> Arc<Notify> {
        let arrived = Arc::new(Notify::new());
        self.turns.remove(&tenant);
        let queue = self.by_tenant.entry(tenant).or_default();
        queue.apart = Some(Arc::clone(&arrived));
        (queue.is_in_turn, queue.credit, queue.turns) = (false, 0, 0);
        arrived
    }

    /// Takes jobs of a tenant that is apart: up to `max` of weight, or one job that is heavier.
    pub(super) fn take_apart(&mut self, tenant: &str, max: usize) -> Vec<J> {
        let mut taken = Vec::new();
        if let Some(queue) = self.by_tenant.get_mut(tenant) {
            queue.credit = usize::MAX;
            let (slots, _) = queue.take_turn(max, true, &mut taken);
            self.slots -= slots;
            (queue.is_in_turn, queue.credit) = (false, 0);
        }
        taken
    }

    /// Ends what [`FairQueue::set_apart`] began.
    pub(super) fn rejoin(&mut self, tenant: &str) {
        let Some(queue) = self.by_tenant.get_mut(tenant) else {
            return;
        };
        queue.apart = None;
        match queue.jobs.is_empty() {
            true => drop(self.by_tenant.remove(tenant)),
            false => queue.turns = usize::from(self.turns.join(Arc::from(tenant))),
        }
    }
}

impl<J> Default for TenantQueue<J> {
    fn default() -> Self {
        TenantQueue {
            jobs: VecDeque::new(),
            slots: 0,
            credit: 0,
            turns: 0,
            is_in_turn: false,
            apart: None,
        }
    }
}

impl<J: Queueable> TenantQueue<J> {
    /// Moves the jobs of one turn to `taken`: those that the credit covers, up to `max` of
    /// weight. The first job of a batch may be heavier. Returns their slots and their weight.
    fn take_turn(&mut self, max: usize, is_first: bool, taken: &mut Vec<J>) -> (usize, usize) {
        let (mut slots, mut weight) = (0, 0);
        while let Some(job) = self.jobs.front() {
            let next = job.weight();
            let fits = weight + next <= max || (is_first && slots == 0);
            if next > self.credit || !fits {
                // The turn goes on in the next batch if only this batch is full.
                self.is_in_turn = next <= self.credit;
                break;
            }
            self.credit -= next;
            slots += job.slots();
            weight += next;
            taken.extend(self.jobs.pop_front());
        }
        if self.jobs.is_empty() {
            self.is_in_turn = false;
            self.credit = 0;
        }
        self.slots -= slots;
        (slots, weight)
    }
}

#[cfg(test)]
mod tests;
