//! Shares of a limited resource, such as slots or bytes, so that no client takes all of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::net::client_network;

/// A number of units for all clients.
///
/// A client may hold as many units as are still free. One alone gets half of them, the next one
/// half of the rest. So a client that holds its units for long leaves some to others.
pub struct Shares {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// The units of each client. No client has none.
    by_client: HashMap<IpAddr, usize>,
}

impl Shares {
    /// Makes `limit` free units.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Shares {
            limit,
            taken: Mutex::default(),
        })
    }

    /// Takes units for the client at an address, until the returned value is dropped. Returns `None`
    /// if its share has not as many. All addresses of an IPv6 network of 64 bits are one client.
    #[must_use]
    pub fn take(self: &Arc<Self>, address: IpAddr, units: usize) -> Option<Share> {
        let client = client_network(address);
        let mut taken = self.taken();
        let own = taken.by_client.get(&client).copied().unwrap_or_default();
        let free = self.limit.saturating_sub(taken.all);
        let own = own.saturating_add(units);
        (own <= free).then(|| {
            taken.all += units;
            taken.by_client.insert(client, own);
            Share {
                shares: Arc::clone(self),
                client,
                units,
            }
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Places of a client, until they are dropped.
pub struct Share {
    shares: Arc<Shares>,
    client: IpAddr,
    units: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        taken.all = taken.all.saturating_sub(self.units);
        if let Entry::Occupied(mut own) = taken.by_client.entry(self.client) {
            *own.get_mut() = own.get().saturating_sub(self.units);
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &Arc<Shares>, address: &str) -> Vec<Share> {
        let address = address.parse().unwrap();
        std::iter::from_fn(|| shares.take(address, 1)).collect()
    }

    #[test]
    fn a_client_leaves_as_many_units_as_it_takes() {
        let shares = Shares::new(512);
        let first = take_all(&shares, "192.0.2.1");
        let second = take_all(&shares, "192.0.2.2");
        let third = take_all(&shares, "2001:db8::1");
        let of_its_network = take_all(&shares, "2001:db8::2");
        let counts = [&first, &second, &third, &of_its_network].map(Vec::len);
        assert_eq!(counts, [256, 128, 64, 0]);
        drop(second);
        assert!(!take_all(&shares, "192.0.2.3").is_empty());
        drop((first, third));
        assert_eq!(take_all(&shares, "192.0.2.1").len(), 256);
        assert!(shares.taken().by_client.is_empty());
    }
}
