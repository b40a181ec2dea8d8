//! Turns on the connections for queries, such as lists and statistics.
//!
//! Tokens take turns, and within a token namespaces do. Where calls have no tokens, namespaces take
//! turns. A turn costs the time from the connection until the response is encoded, so it grows with
//! the rows that are read and with the bytes that are encoded. Until then the rows are in memory, so
//! the number of turns limits that, too.
//!
//! Where there are several connections, one token never has all of them, and one of its namespaces
//! never has all of its share. So slow queries leave a connection to others. The places of the queue are shared in the same way: a
//! token may take as many as are still free.

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
use super::{DbError, lease::LEASE_TIMEOUT, query::Owner};

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

/// The place of a query in the queue. A query that stops waiting leaves it.
struct Place<'a> {
    turns: &'a Turns,
    keys: &'a Keys,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.queue().leave(self.keys, self.ticket);
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
    /// [`DbError::Busy`] if the turn does not come in time, or if its owner has too many queries
    /// that wait.
    pub(super) async fn acquire(&self, owner: Owner) -> Result<Turn, DbError> {
        let keys = keys(owner);
        let (reply, turn) = oneshot::channel();
        let ticket = self.queue().push(&keys, reply)?;
        let _place = Place {
            turns: self,
            keys: &keys,
            ticket,
        };
        self.hand_out();
        let turn = timeout(LEASE_TIMEOUT, turn).await;
        turn.ok().and_then(Result::ok).ok_or(DbError::Busy)
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
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::{task::JoinSet, time::sleep};
    use uuid::Uuid;

    use super::{
        queue::{MAX_WAITING, Payer},
        *,
    };
    use crate::domain::{id::TokenId, namespace::Namespace};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn owner(token: u128, namespace: &str) -> Owner {
        Owner::Tenant {
            token_id: Some(TokenId(Uuid::from_u128(token))),
            namespace: Namespace::admitted(namespace.to_owned()),
        }
    }

    fn without_token(namespace: &str) -> Owner {
        Owner::Tenant {
            token_id: None,
            namespace: Namespace::admitted(namespace.to_owned()),
        }
    }

    async fn is_busy(turns: &Turns, owner: Owner) -> bool {
        matches!(turns.acquire(owner).await, Err(DbError::Busy))
    }

    /// Callers that run one query after the other, until the value is dropped.
    struct Flood {
        queries: Arc<AtomicU32>,
        _callers: JoinSet<()>,
    }

    impl Flood {
        /// Starts callers. `owner` tells the owner of each query.
        fn start(
            turns: &Turns,
            callers: usize,
            cost: Duration,
            owner: impl Fn(u32) -> Owner + Clone + Send + 'static,
        ) -> Self {
            let (queries, begun) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let caller = || {
                let (turns, owner) = (turns.clone(), owner.clone());
                let (queries, begun) = (Arc::clone(&queries), Arc::clone(&begun));
                async move {
                    loop {
                        let number = begun.fetch_add(1, Ordering::Relaxed);
                        if let Ok(turn) = turns.acquire(owner(number)).await {
                            sleep(cost).await;
                            queries.fetch_add(1, Ordering::Relaxed);
                            drop(turn);
                        }
                    }
                }
            };
            let callers = (0..callers).map(|_| caller()).collect();
            Flood {
                queries,
                _callers: callers,
            }
        }

        fn queries(&self) -> u32 {
            self.queries.load(Ordering::Relaxed)
        }
    }

    /// Fails unless nothing runs, nothing waits, and no owner is remembered.
    fn assert_idle(turns: &Turns) {
        let queue = turns.queue();
        let counts = (queue.running, queue.waiting, queue.owners.len());
        assert_eq!(counts, (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_with_many_namespaces_leaves_a_connection_to_others() {
        let turns = Turns::new(4);
        let mut held = Vec::new();
        for namespace in ["a/1", "a/2", "a/3"] {
            held.push(turns.acquire(owner(1, namespace)).await.unwrap());
        }
        assert!(is_busy(&turns, owner(1, "a/4")).await);
        held.push(turns.acquire(owner(2, "b")).await.unwrap());
        assert!(is_busy(&turns, owner(3, "c")).await);
        drop(held);
        assert_idle(&turns);
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_leaves_a_connection_to_others_of_its_token() {
        let turns = Turns::new(4);
        let first = turns.acquire(owner(1, "a/1")).await.unwrap();
        let second = turns.acquire(owner(1, "a/1")).await.unwrap();
        assert!(is_busy(&turns, owner(1, "a/1")).await);
        let other = turns.acquire(owner(1, "a/2")).await.unwrap();
        drop((first, second, other));
        assert_idle(&turns);
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_without_a_token_gets_all_connections_but_one() {
        let turns = Turns::new(3);
        let _first = turns.acquire(without_token("a")).await.unwrap();
        let _second = turns.acquire(without_token("a")).await.unwrap();
        assert!(is_busy(&turns, without_token("a")).await);
        turns.acquire(without_token("b")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_connection_is_shared() {
        let turns = Turns::new(1);
        let turn = turns.acquire(owner(1, "a")).await.unwrap();
        assert!(is_busy(&turns, Owner::Operators).await);
        drop(turn);
        turns.acquire(Owner::Operators).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_does_not_wait_for_operators_nor_for_its_own_queries() {
        let turns = Turns::new(3);
        let _operators = turns.acquire(Owner::Operators).await.unwrap();
        let _retention = turns.acquire(Owner::Service).await.unwrap();
        turns.acquire(Owner::Service).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_with_cheap_and_costly_queries_get_the_same_time() {
        let turns = Turns::new(1);
        let costly = Flood::start(&turns, 3, ms(90), |_| owner(1, "a"));
        let cheap = Flood::start(&turns, 3, ms(10), |_| owner(2, "b"));
        sleep(ms(18_000)).await;
        let (costly, cheap) = (costly.queries() * 90, cheap.queries() * 10);
        assert!(costly.abs_diff(cheap) < 500, "{costly} ms, {cheap} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_gets_no_more_time_by_many_namespaces() {
        let turns = Turns::new(1);
        let many = Flood::start(&turns, 20, ms(10), |number| {
            owner(1, &format!("a/{}", number % 20))
        });
        let one = Flood::start(&turns, 2, ms(10), |_| owner(2, "b"));
        sleep(ms(10_000)).await;
        let (many, one) = (many.queries(), one.queries());
        assert!(many.abs_diff(one) < 20, "{many}, {one}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_waits_for_about_one_turn_of_each_other_owner() {
        let turns = Turns::new(1);
        let _flood = Flood::start(&turns, 100, ms(10), |_| owner(1, "a"));
        sleep(ms(5000)).await;
        let begun = Instant::now();
        turns.acquire(owner(2, "b")).await.unwrap();
        assert!(begun.elapsed() <= ms(20), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_long_query_an_owner_has_turns_again() {
        let turns = Turns::new(1);
        let long = turns.acquire(owner(1, "a")).await.unwrap();
        sleep(ms(60_000)).await;
        let _flood = Flood::start(&turns, 3, ms(10), |_| owner(2, "b"));
        sleep(ms(10)).await;
        drop(long);
        let begun = Instant::now();
        turns.acquire(owner(1, "a")).await.unwrap();
        assert!(begun.elapsed() > ms(250), "the others come first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_row_of_newcomers_does_not_keep_an_owner_waiting() {
        let turns = Turns::new(1);
        let first = turns.acquire(owner(1, "old")).await.unwrap();
        let _newcomers = Flood::start(&turns, 3, ms(10), |number| {
            owner(1, &format!("new-{number}"))
        });
        sleep(ms(100)).await;
        drop(first);
        turns.acquire(owner(1, "old")).await.unwrap();
        let mut queue = turns.queue();
        let token = Payer::Token(TokenId(Uuid::from_u128(1)));
        let namespaces = queue.owners.content(&token).unwrap();
        let remembered = namespaces.len();
        assert!(remembered < 10, "{remembered} namespaces");
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_stops_waiting_leaves_its_place() {
        let turns = Turns::new(2);
        let turn = turns.acquire(owner(1, "a")).await.unwrap();
        let late = timeout(ms(10), turns.acquire(owner(1, "a")));
        assert!(late.await.is_err());
        assert_eq!(turns.queue().waiting, 0);
        drop(turn);
        assert_idle(&turns);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_leaves_places_of_the_queue_to_others() {
        let turns = Turns::new(1);
        let _turn = turns.acquire(owner(1, "a")).await.unwrap();
        let mut waiting = JoinSet::new();
        for namespace in 0..200 {
            for _ in 0..10 {
                let (turns, namespace) = (turns.clone(), format!("a/{namespace}"));
                waiting.spawn(async move { drop(turns.acquire(owner(1, &namespace)).await) });
            }
        }
        sleep(ms(1)).await;
        assert_eq!(turns.queue().waiting, MAX_WAITING / 2);
        let begun = Instant::now();
        assert!(is_busy(&turns, owner(1, "a/0")).await);
        assert_eq!(begun.elapsed(), Duration::ZERO, "no place is free");
        assert!(is_busy(&turns, owner(2, "b")).await);
        assert!(begun.elapsed() >= ms(1000), "it has a place");
    }
}
