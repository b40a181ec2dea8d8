//! Accounts of owners that share something, and which of them has the next turn.
//!
//! The owner with the fewest running queries is next. Among those with as many, it is the one that
//! has used the least time, and then the one whose last turn is the oldest. A query is charged when
//! it ends, so its cost need not be guessed.
//!
//! The clock is the time that each owner would have used if all had equal shares, as in weighted
//! fair queueing. A newcomer begins at the clock, so it gets no credit for the past. An owner
//! without queries is forgotten when the clock has reached its time.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// How far an owner can be ahead of the clock, or behind it: a quarter of the time that a query
/// waits. So a query of a minute does not keep its owner waiting for minutes.
const MAX_DIFFERENCE: Duration = Duration::from_millis(250);

/// The average cost is about that of this many queries.
const AVERAGE_OF: u32 = 8;

/// The highest cost that the average counts: after one long query the next ones may be short.
const MAX_AVERAGED: Duration = Duration::from_secs(1);

/// The accounts of owners with keys `K`.
pub(super) struct Accounts<K, T> {
    by_key: HashMap<K, Account<T>>,
    clock: Duration,
    /// Counts newcomers and turns.
    sequence: u64,
}

/// The account of an owner.
pub(super) struct Account<T> {
    waiting: usize,
    running: usize,
    /// How many queries may run at a time.
    max_running: usize,
    /// The time that its queries have used, on the clock.
    used: Duration,
    /// The average cost of its last queries. It begins at zero, so it is low rather than high.
    average: Duration,
    /// The number of its last turn, or of its arrival.
    since: u64,
    /// The queries of the owner, or its own accounts.
    pub(super) content: T,
}

impl<T> Account<T> {
    fn is_active(&self) -> bool {
        self.waiting > 0 || self.running > 0
    }

    /// Returns how long a query of the owner waits for those before it, if their costs are average
    /// and they run at the same time as far as they may.
    fn expected_wait(&self) -> Duration {
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        let max_running = u32::try_from(self.max_running.max(1)).unwrap_or(u32::MAX);
        self.average.saturating_mul(waiting) / max_running
    }

    fn charge(&mut self, cost: Duration) {
        self.used += cost;
        self.average = (self.average * (AVERAGE_OF - 1) + cost.min(MAX_AVERAGED)) / AVERAGE_OF;
    }
}

impl<K: Eq + Hash + Clone, T> Accounts<K, T> {
    pub(super) fn new() -> Self {
        Accounts {
            by_key: HashMap::new(),
            clock: Duration::ZERO,
            sequence: 0,
        }
    }

    /// Returns how many queries of an owner wait.
    pub(super) fn waiting(&self, key: &K) -> usize {
        self.by_key.get(key).map_or(0, |account| account.waiting)
    }

    /// Returns how long a new query of an owner has to wait at least, as far as the costs of its last
    /// queries tell. Zero if none of its queries waits.
    pub(super) fn expected_wait(&self, key: &K) -> Duration {
        let account = self.by_key.get(key);
        account.map_or(Duration::ZERO, Account::expected_wait)
    }

    /// Returns the number of owners whose queries wait.
    pub(super) fn waiting_owners(&self) -> usize {
        self.by_key.values().filter(|it| it.waiting > 0).count()
    }

    /// Counts a query that waits. Its owner may run `max_running` queries at a time. Returns what
    /// belongs to the owner.
    pub(super) fn wait(&mut self, key: &K, max_running: usize, new: impl FnOnce() -> T) -> &mut T {
        self.sequence += 1;
        let (clock, since) = (self.clock, self.sequence);
        let account = self.by_key.entry(key.clone()).or_insert_with(|| Account {
            waiting: 0,
            running: 0,
            max_running,
            used: clock,
            average: Duration::ZERO,
            since,
            content: new(),
        });
        if account.waiting == 0 {
            account.used = account.used.max(clock);
        }
        account.waiting += 1;
        &mut account.content
    }

    /// Returns what belongs to an owner.
    pub(super) fn content(&mut self, key: &K) -> Option<&mut T> {
        self.by_key.get_mut(key).map(|account| &mut account.content)
    }

    /// Returns the owner with the next turn: one of which a query waits, and can begin.
    pub(super) fn next(&self, can_begin: impl Fn(&K, &T) -> bool) -> Option<K> {
        let waiting = self.by_key.iter().filter(|(key, it)| {
            it.waiting > 0 && it.running < it.max_running && can_begin(key, &it.content)
        });
        let next = waiting.min_by_key(|(_, it)| (it.running, it.used, it.since));
        next.map(|(key, _)| key.clone())
    }

    /// Counts a query that waited and begins.
    pub(super) fn begin(&mut self, key: &K) {
        self.sequence += 1;
        if let Some(account) = self.by_key.get_mut(key) {
            account.waiting = account.waiting.saturating_sub(1);
            account.running += 1;
            account.since = self.sequence;
        }
    }

    /// Counts a query that ends, and charges its cost.
    pub(super) fn end(&mut self, key: &K, cost: Duration) {
        let active = self.by_key.values().filter(|it| it.is_active()).count();
        self.clock += cost / u32::try_from(active.max(1)).unwrap_or(u32::MAX);
        if let Some(account) = self.by_key.get_mut(key) {
            account.running = account.running.saturating_sub(1);
            account.charge(cost);
        }
        let least = self.clock.saturating_sub(MAX_DIFFERENCE);
        for account in self.by_key.values_mut() {
            account.used = account.used.clamp(least, self.clock + MAX_DIFFERENCE);
        }
        self.forget();
    }

    /// Counts a query that stops waiting.
    pub(super) fn leave(&mut self, key: &K) {
        if let Some(account) = self.by_key.get_mut(key) {
            account.waiting = account.waiting.saturating_sub(1);
        }
        self.forget();
    }

    fn forget(&mut self) {
        let clock = self.clock;
        self.by_key
            .retain(|_, account| account.is_active() || account.used > clock);
    }

    /// Returns the number of accounts.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
