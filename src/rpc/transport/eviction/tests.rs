//! Which connection makes room for another one.

use futures_util::FutureExt;

use super::*;
use crate::{domain::error::Error, ops::metrics::Metrics};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn connections(limit: usize) -> Arc<Connections> {
    let metrics = Metrics::new().unwrap();
    let known = KnownClients {
        health: "192.0.2.99".parse().unwrap(),
        ..KnownClients::default()
    };
    Connections::new(limit, known, metrics.connections().clone())
}

fn add(connections: &Arc<Connections>, count: usize) -> Vec<Arc<ConnectionSlot>> {
    (0..count).map(|_| connections.add(HERE)).collect()
}

fn is_evicted(slot: &Arc<ConnectionSlot>) -> bool {
    slot.evicted().now_or_never().is_some()
}

#[test]
fn the_oldest_connection_without_an_authenticated_call_is_evicted() {
    let connections = connections(1);
    let authenticated = connections.add(HERE);
    authenticated.authenticate(None, false).unwrap();
    let health_only = connections.add(HERE);
    health_only.protect_health_checks();
    let silent = add(&connections, RESERVE - 1);
    assert!(!silent.iter().any(is_evicted));
    let _newcomers = add(&connections, 2);
    assert!(is_evicted(&silent[0]) && is_evicted(&silent[1]));
    assert!(!is_evicted(&silent[2]));
    assert!(!is_evicted(&authenticated) && !is_evicted(&health_only));
}

#[test]
fn health_checks_do_not_lock_out_newcomers() {
    let connections = connections(1);
    let flood = add(&connections, 3 * RESERVE);
    for slot in &flood {
        slot.protect_health_checks();
    }
    let newcomers = add(&connections, RESERVE - MAX_HEALTH_ONLY);
    assert!(!newcomers.iter().any(is_evicted));
    newcomers[0].authenticate(None, false).unwrap();
    let balancer = connections.add("192.0.2.99".parse().unwrap());
    balancer.protect_health_checks();
    let _newcomers = add(&connections, 2 * RESERVE);
    assert!(is_evicted(&newcomers[1]) && !is_evicted(&balancer));
}

#[test]
fn load_balancers_do_not_take_the_protection_of_others() {
    let connections = connections(1);
    let balancers: Vec<_> = (0..2 * MAX_HEALTH_ONLY)
        .map(|_| connections.add("192.0.2.99".parse().unwrap()))
        .collect();
    for slot in &balancers {
        slot.protect_health_checks();
    }
    let other = connections.add(HERE);
    other.protect_health_checks();
    let _newcomers = add(&connections, 2 * RESERVE);
    assert!(!is_evicted(&other) && !balancers.iter().any(is_evicted));
    drop(balancers);
    assert_eq!(connections.open().balancers, 0);
    assert_eq!(connections.open().health_only, 1);
}

#[test]
fn only_authenticated_connections_count_against_the_limit() {
    let connections = connections(1);
    let _silent = add(&connections, RESERVE);
    let first = connections.add(HERE);
    first.begin_call();
    first.authenticate(None, false).unwrap();
    first.authenticate(None, false).unwrap();
    let second = connections.add(HERE);
    second.protect_health_checks();
    assert!(!second.is_over_limit(), "it may only check health");
    assert!(matches!(
        second.authenticate(None, false),
        Err(Error::TooManyConnections)
    ));
    assert!(second.is_over_limit());
    drop(first);
    second.authenticate(None, false).unwrap();
    assert!(!second.is_over_limit());
}

#[test]
fn the_client_with_the_most_connections_loses_one() {
    let connections = connections(1);
    let other = connections.add("192.0.2.7".parse().unwrap());
    let flood = add(&connections, RESERVE + 100);
    assert_eq!(flood.iter().filter(|it| is_evicted(it)).count(), 100);
    assert!(!is_evicted(&other));
    let flood = (0..2 * RESERVE).map(|host| {
        let host = format!("2001:db8::{host:x}");
        connections.add(host.parse().unwrap())
    });
    let flood: Vec<_> = flood.collect();
    assert!(flood.iter().any(is_evicted), "a network is one client");
    assert!(!is_evicted(&other));
}

#[test]
fn the_connection_that_is_idle_for_longest_makes_room() {
    let connections = connections(3);
    let authenticated: Vec<_> = (0..3)
        .map(|_| {
            let slot = connections.add(HERE);
            slot.begin_call();
            slot.authenticate(None, false).unwrap();
            slot
        })
        .collect();
    let is_retired = |index: usize| authenticated[index].retired().now_or_never().is_some();
    let newcomer = connections.add(HERE);
    newcomer.begin_call();
    assert!(
        newcomer.authenticate(None, false).is_err(),
        "all have calls"
    );
    authenticated[2].end_call();
    authenticated[1].end_call();
    assert!(
        newcomer.authenticate(None, false).is_err(),
        "it has just searched"
    );
    let newcomer = connections.add(HERE);
    newcomer.begin_call();
    newcomer.authenticate(None, false).unwrap();
    assert!(!is_retired(0) && !is_retired(1) && is_retired(2));
    let newcomer = connections.add(HERE);
    newcomer.begin_call();
    newcomer.authenticate(None, false).unwrap();
    assert!(!is_retired(0) && is_retired(1));
    // A retired connection may still make calls until it is closed.
    authenticated[1].authenticate(None, false).unwrap();
    drop(authenticated);
    assert_eq!(connections.open().authenticated.len(), 2);
}

/// Adds connections of a token that have a call in progress.
fn add_busy(
    connections: &Arc<Connections>,
    owner: TokenId,
    count: usize,
) -> Vec<Arc<ConnectionSlot>> {
    let slots = add(connections, count);
    for slot in &slots {
        slot.begin_call();
        slot.authenticate(Some(owner), false).unwrap();
    }
    slots
}

fn is_retired(slot: &Arc<ConnectionSlot>) -> bool {
    slot.retired().now_or_never().is_some()
}

#[test]
fn a_token_below_its_share_takes_a_connection_of_one_above() {
    let connections = connections(6);
    let tokens = [(); 4].map(|()| TokenId::generate());
    let many = add_busy(&connections, tokens[0], 6);
    let one_more = connections.add(HERE);
    assert!(one_more.authenticate(Some(tokens[0]), false).is_err());
    let few = add_busy(&connections, tokens[1], 3);
    let retired: Vec<_> = many.iter().map(is_retired).collect();
    assert_eq!(retired, [true, true, true, false, false, false]);
    assert!(many[0].reclaimed().now_or_never().is_some());
    assert!(many[3].reclaimed().now_or_never().is_none());
    // Both have their share.
    assert!(one_more.authenticate(Some(tokens[0]), false).is_err());
    assert!(one_more.authenticate(Some(tokens[1]), false).is_err());
    // The shares shrink. The connection whose last call ended first has to close.
    many[3].end_call();
    many[3].begin_call();
    let _third = add_busy(&connections, tokens[2], 2);
    let of_many = many.iter().filter(|it| is_retired(it)).count();
    let of_few = few.iter().filter(|it| is_retired(it)).count();
    assert_eq!((of_many, of_few), (1, 1));
    assert!(!is_retired(&many[3]));
}

#[test]
fn idle_connections_of_a_token_above_its_share_make_room_first() {
    let connections = connections(6);
    let [large, small, new] = [(); 3].map(|()| TokenId::generate());
    let of_large = add_busy(&connections, large, 5);
    let of_small = add_busy(&connections, small, 1);
    of_small[0].end_call();
    of_large[3].end_call();
    let of_new = add_busy(&connections, new, 1);
    let retired: Vec<_> = of_large.iter().map(is_retired).collect();
    assert_eq!(retired, [false, false, false, true, false]);
    assert!(of_large[3].reclaimed().now_or_never().is_none());
    // Not even an idle connection of another token makes room for one above its share.
    let one_more = connections.add(HERE);
    assert!(one_more.authenticate(Some(large), false).is_err());
    assert!(!is_retired(&of_small[0]) && !is_retired(&of_new[0]));
    of_large[0].end_call();
    let one_more = connections.add(HERE);
    one_more.authenticate(Some(large), false).unwrap();
    assert!(is_retired(&of_large[0]));
}

#[test]
fn more_tokens_than_connections_take_idle_ones() {
    let connections = connections(2);
    let open = [(); 2].map(|()| add_busy(&connections, TokenId::generate(), 1));
    let newcomer = connections.add(HERE);
    let new = TokenId::generate();
    assert!(
        newcomer.authenticate(Some(new), false).is_err(),
        "all have calls"
    );
    open[1][0].end_call();
    let newcomer = connections.add(HERE);
    newcomer.authenticate(Some(new), false).unwrap();
    assert!(is_retired(&open[1][0]));
}

#[test]
fn a_connection_is_that_of_its_latest_call() {
    let connections = connections(2);
    let [first, second, third] = [(); 3].map(|()| TokenId::generate());
    let of_proxy = add_busy(&connections, first, 1);
    let own = add_busy(&connections, second, 1);
    of_proxy[0].authenticate(Some(second), false).unwrap();
    let _new = add_busy(&connections, third, 1);
    assert!(is_retired(&of_proxy[0]) && !is_retired(&own[0]));
}

#[test]
fn connections_that_do_not_close_are_evicted_in_the_order_in_which_they_were_told_to() {
    let connections = connections(2);
    let token = TokenId::generate();
    let mut greedy = add_busy(&connections, token, 2);
    // The first call of the older one ends last, so the newer one is the first to be told.
    greedy[0].end_call();
    greedy[0].begin_call();
    for _ in 0..=RESERVE {
        // It takes a connection, and leaves its slot again.
        drop(add_busy(&connections, TokenId::generate(), 1));
        greedy.extend(add_busy(&connections, token, 1));
    }
    let evicted: Vec<_> = greedy.iter().map(is_evicted).collect();
    let first = [false, true].into_iter().chain([false; RESERVE + 1]);
    assert!(evicted.iter().copied().eq(first), "{evicted:?}");
}

#[test]
fn administrators_have_connections_beside_the_limit() {
    let connections = connections(2);
    let busy = [(); 2].map(|()| add_busy(&connections, TokenId::generate(), 1));
    let administrator = Some(TokenId::generate());
    let own = add(&connections, ADMINISTRATOR_CONNECTIONS);
    for slot in &own {
        slot.begin_call();
        slot.authenticate(administrator, true).unwrap();
    }
    let one_more = connections.add(HERE);
    assert!(one_more.authenticate(administrator, true).is_err());
    assert!(!busy.iter().any(|slots| is_retired(&slots[0])));
    // They have more than the share of a token, and must not keep the others from theirs.
    drop(busy);
    add_busy(&connections, TokenId::generate(), 1);
}
