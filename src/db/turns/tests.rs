//! Tests of turns.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use super::{
    queue::{Load, MAX_WAITING, Principal},
    *,
};
use crate::domain::{id::TokenId, namespace::Namespace};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn owner(token: u128, namespace: &str) -> Owner {
    Owner::Tenant {
        token_id: Some(TokenId(Uuid::from_u128(token))),
        namespace: Namespace::for_test(namespace),
    }
}

fn without_token(namespace: &str) -> Owner {
    Owner::Tenant {
        token_id: None,
        namespace: Namespace::for_test(namespace),
    }
}

async fn is_busy(turns: &Turns, owner: Owner) -> bool {
    matches!(turns.acquire(owner, None).await, Err(DbError::Busy))
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
                    if let Ok(turn) = turns.acquire(owner(number), None).await {
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
    let idle = Load::default();
    assert_eq!((queue.tenants, queue.others), (idle, idle));
    assert_eq!(queue.owners.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_with_many_namespaces_leaves_a_connection_to_others() {
    let turns = Turns::new(5);
    let mut held = Vec::new();
    for namespace in ["a/1", "a/2", "a/3"] {
        held.push(turns.acquire(owner(1, namespace), None).await.unwrap());
    }
    assert!(is_busy(&turns, owner(1, "a/4")).await);
    held.push(turns.acquire(owner(2, "b"), None).await.unwrap());
    assert!(is_busy(&turns, owner(3, "c")).await);
    drop(held);
    assert_idle(&turns);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_leaves_a_connection_to_others_of_its_token() {
    let turns = Turns::new(5);
    let first = turns.acquire(owner(1, "a/1"), None).await.unwrap();
    let second = turns.acquire(owner(1, "a/1"), None).await.unwrap();
    assert!(is_busy(&turns, owner(1, "a/1")).await);
    let other = turns.acquire(owner(1, "a/2"), None).await.unwrap();
    drop((first, second, other));
    assert_idle(&turns);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_a_token_gets_all_connections_of_tenants_but_one() {
    let turns = Turns::new(4);
    let _first = turns.acquire(without_token("a"), None).await.unwrap();
    let _second = turns.acquire(without_token("a"), None).await.unwrap();
    assert!(is_busy(&turns, without_token("a")).await);
    turns.acquire(without_token("b"), None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_only_connection_is_shared() {
    let turns = Turns::new(1);
    let turn = turns.acquire(owner(1, "a"), None).await.unwrap();
    assert!(is_busy(&turns, Owner::Operators).await);
    drop(turn);
    turns.acquire(Owner::Operators, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_service_does_not_wait_for_operators_nor_for_its_own_queries() {
    let turns = Turns::new(3);
    let _operators = turns.acquire(Owner::Operators, None).await.unwrap();
    let _retention = turns.acquire(Owner::Service, None).await.unwrap();
    turns.acquire(Owner::Service, None).await.unwrap();
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
    turns.acquire(owner(2, "b"), None).await.unwrap();
    assert!(begun.elapsed() <= ms(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_long_query_an_owner_has_turns_again() {
    let turns = Turns::new(1);
    let long = turns.acquire(owner(1, "a"), None).await.unwrap();
    sleep(ms(60_000)).await;
    let _flood = Flood::start(&turns, 3, ms(10), |_| owner(2, "b"));
    sleep(ms(10)).await;
    drop(long);
    let begun = Instant::now();
    turns.acquire(owner(1, "a"), None).await.unwrap();
    assert!(begun.elapsed() > ms(250), "the others come first");
}

#[tokio::test(start_paused = true)]
async fn an_endless_row_of_newcomers_does_not_keep_an_owner_waiting() {
    let turns = Turns::new(1);
    let first = turns.acquire(owner(1, "old"), None).await.unwrap();
    let _newcomers = Flood::start(&turns, 3, ms(10), |number| {
        owner(1, &format!("new-{number}"))
    });
    sleep(ms(100)).await;
    drop(first);
    turns.acquire(owner(1, "old"), None).await.unwrap();
    let mut queue = turns.queue();
    let token = Principal::Token(TokenId(Uuid::from_u128(1)));
    let namespaces = queue.owners.content(&token).unwrap();
    let remembered = namespaces.len();
    assert!(remembered < 10, "{remembered} namespaces");
}

#[tokio::test(start_paused = true)]
async fn a_query_that_stops_waiting_leaves_its_slot() {
    let turns = Turns::new(2);
    let turn = turns.acquire(owner(1, "a"), None).await.unwrap();
    let late = timeout(ms(10), turns.acquire(owner(1, "a"), None));
    assert!(late.await.is_err());
    assert_eq!(turns.queue().tenants.waiting, 0);
    drop(turn);
    assert_idle(&turns);
}

#[tokio::test(start_paused = true)]
async fn a_token_leaves_slots_of_the_queue_to_others() {
    let turns = Turns::new(1);
    let _turn = turns.acquire(owner(1, "a"), None).await.unwrap();
    let mut waiting = JoinSet::new();
    for namespace in 0..200 {
        for _ in 0..10 {
            let (turns, namespace) = (turns.clone(), format!("a/{namespace}"));
            waiting.spawn(async move { drop(turns.acquire(owner(1, &namespace), None).await) });
        }
    }
    sleep(ms(1)).await;
    assert_eq!(turns.queue().tenants.waiting, MAX_WAITING / 2);
    let begun = Instant::now();
    assert!(is_busy(&turns, owner(1, "a/0")).await);
    assert_eq!(begun.elapsed(), Duration::ZERO, "no slot is free");
    assert!(is_busy(&turns, owner(2, "b")).await);
    assert!(begun.elapsed() >= ms(1000), "it has a slot");
}

#[tokio::test(start_paused = true)]
async fn tenants_leave_a_connection_to_the_service_and_to_operators() {
    for others in [Owner::Service, Owner::Operators] {
        let turns = Turns::new(4);
        let mut held = Vec::new();
        for (token, namespace) in [(1, "a/1"), (1, "a/2"), (2, "b")] {
            held.push(turns.acquire(owner(token, namespace), None).await.unwrap());
        }
        assert!(is_busy(&turns, owner(3, "c")).await);
        let begun = Instant::now();
        held.push(turns.acquire(others, None).await.unwrap());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_has_a_place_in_the_queue_while_those_of_tenants_are_taken() {
    let turns = Turns::new(1);
    let turn = turns.acquire(owner(1, "a"), None).await.unwrap();
    let mut waiting = JoinSet::new();
    for token in 1..=MAX_WAITING as u128 {
        let turns = turns.clone();
        waiting.spawn(async move { drop(turns.acquire(owner(token, "a"), None).await) });
    }
    sleep(ms(1)).await;
    let begun = Instant::now();
    assert!(is_busy(&turns, owner(u128::MAX, "a")).await);
    assert_eq!(begun.elapsed(), Duration::ZERO, "no slot is free");
    let service = turns.acquire(Owner::Service, None);
    let service = tokio::join!(service, async { drop(turn) }).0;
    assert!(service.is_ok());
}

/// Runs queries of the owner "a", one after the other. The next one waits while one ends, so the owner
/// is remembered. Returns the turn of the last one.
async fn run_in_a_row(turns: &Turns, costs: impl IntoIterator<Item = Duration>) -> Turn {
    let mut turn = turns.acquire(owner(1, "a"), None).await.unwrap();
    for cost in costs {
        sleep(cost).await;
        let end = async { drop(turn) };
        let (next, ()) = tokio::join!(turns.acquire(owner(1, "a"), None), end);
        turn = next.unwrap();
    }
    turn
}

/// Makes queries of the owner "a" wait.
async fn wait(turns: &Turns, queries: usize) -> JoinSet<()> {
    let mut waiting = JoinSet::new();
    for _ in 0..queries {
        let turns = turns.clone();
        waiting.spawn(async move { drop(turns.acquire(owner(1, "a"), None).await) });
    }
    sleep(ms(1)).await;
    waiting
}

#[tokio::test(start_paused = true)]
async fn a_query_fails_at_once_if_its_turn_cannot_come_before_its_deadline() {
    let turns = Turns::new(1);
    let _turn = run_in_a_row(&turns, [ms(100); 20]).await;
    let _waiting = wait(&turns, 10).await;
    let begun = Instant::now();
    let hopeless = turns.acquire(owner(1, "a"), Some(begun + ms(200))).await;
    assert!(matches!(hopeless, Err(DbError::Busy)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Another owner does not wait behind it, and a later deadline may be met.
    for (owner, deadline) in [(owner(2, "b"), ms(200)), (owner(1, "a"), ms(900))] {
        let begun = Instant::now();
        let possible = turns.acquire(owner, Some(begun + deadline));
        assert!(timeout(ms(100), possible).await.is_err(), "it waits");
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_without_a_deadline_fails_at_once_if_its_turn_would_come_seconds_later() {
    let turns = Turns::new(1);
    let _turn = run_in_a_row(&turns, [ms(100); 20]).await;
    let _waiting = wait(&turns, 30).await;
    let begun = Instant::now();
    assert!(is_busy(&turns, owner(1, "a")).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_long_query_does_not_make_others_fail() {
    let turns = Turns::new(1);
    let turn = run_in_a_row(&turns, [ms(600_000)]).await;
    let _waiting = wait(&turns, 10).await;
    let next = turns.acquire(owner(1, "a"), None);
    let (next, ()) = tokio::join!(next, async { drop(turn) });
    assert!(next.is_ok());
}
