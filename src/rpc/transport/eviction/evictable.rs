//! The connections that may be evicted, by client.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::Notify;

use crate::util::net::client_network;

/// Connections without an authenticated call. The client with the most of them loses one first, so
/// that one machine cannot crowd out the others.
#[derive(Default)]
pub(super) struct Evictable {
    /// The connections of each client by id, oldest first. No client has none.
    clients: HashMap<IpAddr, BTreeMap<u64, Arc<Notify>>>,
    len: usize,
}

impl Evictable {
    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a connection. It is evicted by `notify`.
    pub(super) fn insert(&mut self, client: IpAddr, id: u64, notify: Arc<Notify>) {
        let connections = self.clients.entry(client_network(client)).or_default();
        connections.insert(id, notify);
        self.len += 1;
    }

    /// Removes a connection, if it is there.
    pub(super) fn remove(&mut self, client: IpAddr, id: u64) {
        let client = client_network(client);
        let Some(connections) = self.clients.get_mut(&client) else {
            return;
        };
        if connections.remove(&id).is_some() {
            self.len -= 1;
        }
        if connections.is_empty() {
            self.clients.remove(&client);
        }
    }

    /// Evicts the oldest connection of the client that has the most. Returns false if there is no
    /// connection.
    pub(super) fn evict(&mut self) -> bool {
        let clients = self.clients.iter();
        let oldest = clients.filter_map(|(client, connections)| {
            let (id, notify) = connections.first_key_value()?;
            Some((connections.len(), Reverse(*id), *client, notify))
        });
        let Some((_, Reverse(id), client, notify)) = oldest.max_by_key(|it| (it.0, it.1)) else {
            return false;
        };
        notify.notify_one();
        self.remove(client, id);
        true
    }
}
