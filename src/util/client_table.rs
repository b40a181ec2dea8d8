//! A bounded table of clients.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::net::client_network;

/// How many clients have an entry of their own. All others share one.
const MAX_CLIENTS: usize = 4096;

/// The key of the entry that all clients over [`MAX_CLIENTS`] share. No client has it.
const OTHERS: Option<IpAddr> = None;

/// Minimum time between two searches for entries that can be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of each client. All addresses of an IPv6 network of 64 bits are one client.
pub struct ClientTable<T> {
    new_entry: Box<dyn Fn() -> T + Send + Sync>,
    /// Returns whether an entry equals a new one and can be dropped.
    is_as_new: fn(&mut T) -> bool,
    clients: Mutex<Clients<T>>,
}

struct Clients<T> {
    by_network: HashMap<Option<IpAddr>, T>,
    forgotten_at: Option<Instant>,
}

impl<T> ClientTable<T> {
    /// Makes an empty table. It may forget entries that are as new.
    #[must_use]
    pub fn new(
        new_entry: impl Fn() -> T + Send + Sync + 'static,
        is_as_new: fn(&mut T) -> bool,
    ) -> Self {
        ClientTable {
            new_entry: Box::new(new_entry),
            is_as_new,
            clients: Mutex::new(Clients {
                by_network: HashMap::new(),
                forgotten_at: None,
            }),
        }
    }

    /// Runs a function with the entry of the client at an address, which it makes if there is none.
    pub fn with<R>(&self, address: IpAddr, run: impl FnOnce(&mut T) -> R) -> R {
        let mut clients = self.clients();
        let mut network = Some(client_network(address));
        if clients.is_full() && !clients.by_network.contains_key(&network) {
            clients.forget(self.is_as_new);
            if clients.is_full() {
                network = OTHERS;
            }
        }
        let entry = clients.by_network.entry(network);
        run(entry.or_insert_with(&self.new_entry))
    }

    /// Runs a function with the entry of the client at an address, if there is one.
    pub fn with_known<R>(&self, address: IpAddr, run: impl FnOnce(&T) -> R) -> Option<R> {
        self.clients()
            .by_network
            .get(&Some(client_network(address)))
            .map(run)
    }

    fn clients(&self) -> MutexGuard<'_, Clients<T>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clients<T> {
    fn is_full(&self) -> bool {
        self.by_network.len() >= MAX_CLIENTS
    }

    fn forget(&mut self, is_as_new: fn(&mut T) -> bool) {
        let is_due = |at: Instant| at.elapsed() >= FORGET_INTERVAL;
        if self.forgotten_at.is_none_or(is_due) {
            self.forgotten_at = Some(Instant::now());
            self.by_network.retain(|_, entry| !is_as_new(entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        ops::Range,
    };

    use tokio::time::advance;

    use super::*;

    /// The table of a number for each client, of which 0 is new.
    fn count(table: &ClientTable<u32>, hosts: Range<u32>) {
        for host in hosts {
            table.with(Ipv4Addr::from_bits(host).into(), |count| *count += 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let table = ClientTable::new(|| 0, |count| *count < 2);
        count(&table, 0..10);
        count(&table, 0..100_000);
        assert_eq!(table.clients().by_network.len(), MAX_CLIENTS + 1);
        assert!(
            table.clients().by_network[&OTHERS] > 10_000,
            "they share an entry"
        );
        let local = Ipv6Addr::LOCALHOST.into();
        assert_eq!(table.with_known(local, |count| *count), None);
        advance(FORGET_INTERVAL).await;
        count(&table, 200_000..200_001);
        // Those with a count of 2, the others and the new one.
        assert_eq!(table.clients().by_network.len(), 12);
    }

    #[test]
    fn a_network_is_one_client() {
        let table = ClientTable::new(|| 0, |count| *count == 0);
        let address = |text: &str| text.parse().unwrap();
        table.with(address("2001:db8::1"), |count| *count += 1);
        let known = |text| table.with_known(address(text), |count| *count);
        assert_eq!(known("2001:db8::2"), Some(1));
        assert_eq!(known("2001:db9::2"), None);
    }
}
