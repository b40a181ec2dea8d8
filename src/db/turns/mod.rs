//! Turns on the connections for queries, such as lists and statistics.
//!
//! Tokens take turns, and within a token namespaces do. Where calls have no tokens, namespaces take
//! turns. The owner of turns on the first level is called the [`Principal`](queue::Principal).
//!
//! A turn costs the time until the response is encoded and the connection is back in its pool. So it
//! grows with the rows that are read and with the bytes that are encoded. Until then the rows are in
//! memory, so the number of turns limits that, too.
//!
//! With 4 or more database connections, one is kept for the service itself and for operators. With 8 or
//! more, tenants have several, of which one token never has all. With 12 or more, one of its namespaces
//! never has all of its share. So slow queries leave a connection to others. Where there is only one
//! connection, all of them share it. The slots of the queue are shared, too: a token may take as many
//! as are still free.
//!
//! A query waits for at most 1 s. If the queries of its owner before it take much longer than that, or
//! than the deadline of its call allows, it fails at once.

mod accounts;
mod queue;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use self::queue::{Keys, Queue, keys};
use super::{DbError, query::Owner};

/// How long a query waits for its turn.
pub(super) const TURN_TIMEOUT: Duration = Duration::from_secs(1);

/// The turns of all queries. Cheap to clone.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Queue>>);

/// The turn of a query. It ends, and is charged, when it is dropped.
pub struct Turn {
    turns: Turns,
    keys: Keys,
    begun: Instant,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Turn").field(&self.keys).finish()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.end(&self.keys, self.begun.elapsed());
    }
}

/// The slot of a query in the queue. It is returned when the query begins or stops waiting.
struct Slot<'a> {
    turns: &'a Turns,
    keys: &'a Keys,
    waiter_id: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.turns.queue().leave(self.keys, self.waiter_id);
    }
}

impl Turns {
    /// Makes turns for a number of connections.
    pub(super) fn new(connections: u32) -> Self {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        Turns(Arc::new(Mutex::new(Queue::new(connections))))
    }

    /// Waits for the turn of a query, for at most 1 s.
    ///
    /// # Errors
    /// [`DbError::Busy`] if the turn does not come in time. Fails at once if it cannot come before the
    /// deadline of the call, or if its owner has too many queries that wait.
    pub(super) async fn acquire(
        &self,
        owner: Owner,
        deadline: Option<Instant>,
    ) -> Result<Turn, DbError> {
        let keys = keys(owner);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let patience = left.unwrap_or(TURN_TIMEOUT).min(TURN_TIMEOUT);
        let (reply, turn) = oneshot::channel();
        let waiter_id = self.queue().push(&keys, patience, reply)?;
        let _slot = Slot {
            turns: self,
            keys: &keys,
            waiter_id,
        };
        self.hand_out();
        let turn = timeout(TURN_TIMEOUT, turn).await;
        turn.ok().and_then(Result::ok).ok_or(DbError::Busy)
    }

    /// Returns the numbers of queries that run and that wait, and that of owners whose queries wait.
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let queue = self.queue();
        let (tenants, others) = (queue.tenants, queue.others);
        (
            tenants.running + others.running,
            tenants.waiting + others.waiting,
            queue.owners.waiting_owners(),
        )
    }

    fn end(&self, keys: &Keys, cost: Duration) {
        self.queue().end(keys, cost);
        self.hand_out();
    }

    /// Begins as many turns as there are connections.
    fn hand_out(&self) {
        loop {
            let Some((keys, waiter)) = self.queue().next() else {
                return;
            };
            let turn = Turn {
                turns: self.clone(),
                keys,
                begun: Instant::now(),
            };
            // If the query is cancelled at this moment, its turn ends at once.
            drop(waiter.reply.send(turn));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
