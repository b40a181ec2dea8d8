//! The order in which tenants take turns.
//!
//! Turns come in rounds. In each a tenant has as many turns as its weight, and the tenants alternate,
//! so a high weight makes no turn longer. A tenant that had no jobs joins the round in progress for
//! one turn, so it waits for one turn of each tenant, not for all turns that others have left.

use std::{collections::VecDeque, mem, sync::Arc};

/// How many tenants may join a round in progress; as many as the round began with if those are
/// more. Without a limit, tenants that keep joining would keep the others from the next round.
const MAX_JOINS: usize = 64;

/// The tenants that have jobs, in the order of their turns. Each is there once.
#[derive(Debug, Default)]
pub(super) struct TurnOrder {
    /// The tenants with turns left in this round.
    round: VecDeque<Arc<str>>,
    /// Those that have to wait for the next one.
    next_round: VecDeque<Arc<str>>,
    /// The number of tenants that may still join this round.
    joins_left: usize,
}

impl TurnOrder {
    /// Returns the tenant that has the next turn.
    pub(super) fn first(&mut self) -> Option<Arc<str>> {
        if self.round.is_empty() {
            mem::swap(&mut self.round, &mut self.next_round);
            self.joins_left = self.round.len().max(MAX_JOINS);
        }
        self.round.front().cloned()
    }

    /// Adds a tenant that had no jobs. Returns whether it joins the round in progress.
    pub(super) fn join(&mut self, tenant: Arc<str>) -> bool {
        match self.joins_left.checked_sub(1) {
            Some(left) => {
                self.joins_left = left;
                self.round.push_back(tenant);
                true
            }
            None => {
                self.next_round.push_back(tenant);
                false
            }
        }
    }

    /// Ends the turn of the first tenant, which has no more jobs.
    pub(super) fn leave(&mut self) {
        self.round.pop_front();
    }

    /// Ends the turn of the first tenant, which has more jobs, and turns left in this round or not.
    pub(super) fn end_turn(&mut self, has_turns: bool) {
        if let Some(tenant) = self.round.pop_front() {
            match has_turns {
                true => self.round.push_back(tenant),
                false => self.next_round.push_back(tenant),
            }
        }
    }

    /// Gives a tenant the next turn. It is new if it had no jobs.
    pub(super) fn put_first(&mut self, tenant: Arc<str>, is_new: bool) {
        if self.round.front() == Some(&tenant) {
            return;
        }
        if !is_new {
            self.remove(&tenant);
        }
        self.round.push_front(tenant);
    }

    /// Removes a tenant.
    pub(super) fn remove(&mut self, tenant: &str) {
        for queue in [&mut self.round, &mut self.next_round] {
            queue.retain(|it| **it != *tenant);
        }
    }
}
