//! Bounds the calls that are refused for their credential.
//!
//! A call without a valid credential costs nearly as much as one that succeeds, and anyone can make
//! it. The connections of a client that have never had an authenticated call therefore share a
//! budget of refused calls. Without it, a connection still gets an answer now and then: a client with a
//! wrong credential that retries slowly is told so each time. A connection that calls faster is
//! closed, and new connections of its client wait for a moment. A connection that ends without an
//! authenticated call counts as a refused call: accepting it costs as much, and with TLS more.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::util::{
    budget::{Budget, TimedBudget},
    client_table::ClientTable,
    net::KnownClients,
};

/// Refused calls per second of one client, and how many it may make at once. Misconfigured
/// clients stay below, and a thousand calls cost some 20 ms of a core.
const CALLS_PER_SECOND: f64 = 100.0;
const MAX_CALLS: f64 = 200.0;

/// The same for one connection of a client that has used its budget. Clients retry once per second
/// at most, and slow down.
const CONNECTION_CALLS_PER_SECOND: f64 = 2.0;
const MAX_CONNECTION_CALLS: f64 = 2.0;

/// How long a new connection waits, if another one of its client was closed within this time.
/// Long enough that reconnecting gains nothing, and short enough for others behind the same address.
const WAIT: Duration = Duration::from_secs(1);

/// The refused calls of all clients.
pub(super) struct RefusedCalls {
    /// Proxies have no limit, and load balancers never wait.
    known: KnownClients,
    clients: ClientTable<Client>,
}

struct Client {
    budget: TimedBudget,
    closed_at: Option<Instant>,
}

/// The budget of a connection whose client has used its own.
pub(super) struct ConnectionCalls(Mutex<TimedBudget>);

impl Default for ConnectionCalls {
    fn default() -> Self {
        let budget = Budget::new(1.0, MAX_CONNECTION_CALLS, CONNECTION_CALLS_PER_SECOND);
        ConnectionCalls(Mutex::new(TimedBudget::new(budget)))
    }
}

impl RefusedCalls {
    /// Makes a table without clients.
    pub(super) fn new(known: KnownClients) -> Self {
        RefusedCalls {
            known,
            clients: ClientTable::new(Client::new, |client| client.budget.is_full()),
        }
    }

    /// Counts a refused call on a connection. Returns false if the connection has to close.
    pub(super) fn count(&self, address: IpAddr, connection: &ConnectionCalls) -> bool {
        if self.known.proxies.contains(address) {
            return true;
        }
        self.clients.with(address, |client| {
            let mut own = connection.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_within = client.budget.try_spend_one() || own.try_spend_one();
            if !is_within {
                client.closed_at = Some(Instant::now());
            }
            is_within
        })
    }

    /// Counts a connection that has ended without an authenticated call.
    pub(super) fn count_connection(&self, address: IpAddr) {
        if self.known.proxies.contains(address) {
            return;
        }
        self.clients.with(address, |client| {
            if !client.budget.try_spend_one() {
                client.closed_at = Some(Instant::now());
            }
        });
    }

    /// Returns how long a new connection has to wait before it is served, if it has to. A load balancer
    /// never has: it would take the service for dead.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Duration> {
        if self.known.health.contains(address) {
            return None;
        }
        let closed_at = self.clients.with_known(address, |client| client.closed_at);
        let is_recent = closed_at.flatten().is_some_and(|at| at.elapsed() < WAIT);
        is_recent.then_some(WAIT)
    }
}

impl Client {
    fn new() -> Self {
        let budget = Budget::new(MAX_CALLS, MAX_CALLS, CALLS_PER_SECOND);
        Client {
            budget: TimedBudget::new(budget),
            closed_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Counts calls until the connection has to close, or `max`.
    fn count(calls: &RefusedCalls, connection: &ConnectionCalls, max: usize) -> usize {
        let counted = (0..max).take_while(|_| calls.count(HERE, connection));
        counted.count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_makes_too_many_refused_calls_has_to_close() {
        let calls = RefusedCalls::new(KnownClients::default());
        let flooding = ConnectionCalls::default();
        assert_eq!(calls.wait(HERE), None);
        assert_eq!(count(&calls, &flooding, 1000), 201);
        assert_eq!(calls.wait(HERE), Some(WAIT));
        assert_eq!(calls.wait("192.0.2.1".parse().unwrap()), None);
        advance(WAIT).await;
        assert_eq!(calls.wait(HERE), None);
        assert_eq!(count(&calls, &flooding, 1000), 102);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_retries_slowly_gets_an_answer_beside_a_flood() {
        let calls = RefusedCalls::new(KnownClients::default());
        let (slow, flooding) = (ConnectionCalls::default(), ConnectionCalls::default());
        for _ in 0..10 {
            count(&calls, &flooding, 1000);
            assert_eq!(count(&calls, &slow, 1), 1);
            advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_has_no_limit() {
        let calls = RefusedCalls::new(KnownClients {
            proxies: "127.0.0.0/8".parse().unwrap(),
            ..KnownClients::default()
        });
        assert_eq!(count(&calls, &ConnectionCalls::default(), 1000), 1000);
        assert_eq!(calls.wait(HERE), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_connects_too_often_has_to_wait() {
        let calls = RefusedCalls::new(KnownClients::default());
        (0..200).for_each(|_| calls.count_connection(HERE));
        assert_eq!(calls.wait(HERE), None);
        calls.count_connection(HERE);
        assert_eq!(calls.wait(HERE), Some(WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_balancer_does_not_wait() {
        let calls = RefusedCalls::new(KnownClients {
            health: "127.0.0.1".parse().unwrap(),
            ..KnownClients::default()
        });
        // Its refused calls count, because it may be a client, too.
        assert_eq!(count(&calls, &ConnectionCalls::default(), 1000), 201);
        assert_eq!(calls.wait(HERE), None);
    }
}
