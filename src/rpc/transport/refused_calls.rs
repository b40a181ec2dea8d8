//! Bounds the calls that are refused for their credential.
//!
//! A call without a valid credential costs nearly as much as one that succeeds, and anyone can make
//! it. The connections of a client that have never had an authenticated call therefore share a
//! budget of refused calls. Without it, a connection still gets an answer now and then: a client with a
//! wrong credential that retries slowly is told so each time. A connection that calls faster is
//! closed, and new connections of its client wait for a moment.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::budget::{Budget, TimedBudget};
use crate::util::net::{Networks, client_network};

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

/// How many clients have a budget of their own. All others share one.
const MAX_CLIENTS: usize = 4096;

/// The client that stands for all clients over [`MAX_CLIENTS`].
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Minimum time between two searches for clients that can be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// The refused calls of all clients.
pub(super) struct RefusedCalls {
    /// The addresses that stand for many clients, so that these have no limit.
    proxies: Networks,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    by_network: HashMap<IpAddr, Client>,
    forgotten_at: Option<Instant>,
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
    /// Makes a table without clients. `proxies` have no limit.
    pub(super) fn new(proxies: Networks) -> Self {
        RefusedCalls {
            proxies,
            clients: Mutex::default(),
        }
    }

    /// Counts a refused call on a connection. Returns false if the connection has to close.
    pub(super) fn count(&self, address: IpAddr, connection: &ConnectionCalls) -> bool {
        if self.proxies.contains(address) {
            return true;
        }
        self.with_client(address, |client| {
            let mut own = connection.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_within = client.budget.try_spend_one() || own.try_spend_one();
            if !is_within {
                client.closed_at = Some(Instant::now());
            }
            is_within
        })
    }

    /// Returns how long a new connection has to wait before it is served, if it has to.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Duration> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.by_network.get(&client_network(address))?;
        let is_recent = client.closed_at.is_some_and(|at| at.elapsed() < WAIT);
        is_recent.then_some(WAIT)
    }

    fn with_client<T>(&self, address: IpAddr, run: impl FnOnce(&mut Client) -> T) -> T {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut network = client_network(address);
        if clients.by_network.len() >= MAX_CLIENTS && !clients.by_network.contains_key(&network) {
            clients.forget();
            if clients.by_network.len() >= MAX_CLIENTS {
                network = OTHERS;
            }
        }
        run(clients.by_network.entry(network).or_default())
    }
}

impl Clients {
    /// Forgets the clients whose budget is full again.
    fn forget(&mut self) {
        let is_due = |at: Instant| at.elapsed() >= FORGET_INTERVAL;
        if self.forgotten_at.is_none_or(is_due) {
            self.forgotten_at = Some(Instant::now());
            self.by_network.retain(|_, client| !client.budget.is_full());
        }
    }
}

impl Default for Client {
    fn default() -> Self {
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
        let calls = RefusedCalls::new(Networks::default());
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
        let calls = RefusedCalls::new(Networks::default());
        let (slow, flooding) = (ConnectionCalls::default(), ConnectionCalls::default());
        for _ in 0..10 {
            count(&calls, &flooding, 1000);
            assert_eq!(count(&calls, &slow, 1), 1);
            advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_has_no_limit() {
        let calls = RefusedCalls::new("127.0.0.0/8".parse().unwrap());
        assert_eq!(count(&calls, &ConnectionCalls::default(), 1000), 1000);
        assert_eq!(calls.wait(HERE), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_clients_is_bounded() {
        let calls = RefusedCalls::new(Networks::default());
        let connection = ConnectionCalls::default();
        let flood = |hosts: std::ops::Range<u32>| {
            for host in hosts {
                let address = std::net::Ipv4Addr::from_bits(host).into();
                calls.count(address, &connection);
            }
        };
        let len = || calls.clients.lock().unwrap().by_network.len();
        flood(0..100_000);
        assert_eq!(len(), MAX_CLIENTS + 1);
        advance(Duration::from_secs(10)).await;
        flood(0..10);
        flood(200_000..200_001);
        assert!(len() < 100, "{}", len());
    }
}
