//! The queue of queries, with two levels of owners: tokens, and their namespaces.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::oneshot;

use super::{Turn, accounts::Accounts};
use crate::{
    db::{DbError, query::Owner},
    domain::{id::TokenId, namespace::Namespace},
};

/// The number of queries that may wait. Each waits for at most 1 s, in which a connection runs some
/// hundred small ones.
pub(super) const MAX_WAITING: usize = 1024;

/// The first level of owners.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    Service,
    Operators,
    Token(TokenId),
    /// Of calls without a token.
    Namespace(Namespace),
}

/// The keys of both levels. Only tokens have namespaces on the second level.
pub(super) type Keys = (Payer, Option<Namespace>);

/// Returns the keys of an owner.
pub(super) fn keys(owner: Owner) -> Keys {
    match owner {
        Owner::Service => (Payer::Service, None),
        Owner::Operators => (Payer::Operators, None),
        Owner::Tenant {
            token_id: Some(token_id),
            namespace,
        } => (Payer::Token(token_id), Some(namespace)),
        Owner::Tenant {
            token_id: None,
            namespace,
        } => (Payer::Namespace(namespace), None),
    }
}

/// The queries that run, and those that wait.
pub(super) struct Queue {
    /// How many queries may run at a time.
    connections: usize,
    pub(super) running: usize,
    pub(super) waiting: usize,
    tickets: u64,
    pub(super) owners: Accounts<Payer, Namespaces>,
}

type Namespaces = Accounts<Option<Namespace>, VecDeque<Waiter>>;

/// A query that waits for its turn.
pub(super) struct Waiter {
    ticket: u64,
    pub(super) reply: oneshot::Sender<Turn>,
}

impl Queue {
    /// Makes an empty queue for a number of connections.
    pub(super) fn new(connections: usize) -> Self {
        Queue {
            connections,
            running: 0,
            waiting: 0,
            tickets: 0,
            owners: Accounts::new(),
        }
    }

    /// Adds a query that waits. Returns its ticket.
    ///
    /// # Errors
    /// [`DbError::Busy`] if its owner has no place left.
    pub(super) fn push(
        &mut self,
        keys: &Keys,
        reply: oneshot::Sender<Turn>,
    ) -> Result<u64, DbError> {
        let (payer, namespace) = keys;
        let free = MAX_WAITING.saturating_sub(self.waiting);
        let free = free.saturating_sub(self.owners.waiting(payer));
        let taken = self.owners.content(payer);
        let taken = taken.map_or(0, |namespaces| namespaces.waiting(namespace));
        if taken >= free {
            return Err(DbError::Busy);
        }
        self.tickets += 1;
        self.waiting += 1;
        let (of_payer, of_namespace) = self.max_running(payer);
        let namespaces = self.owners.wait(payer, of_payer, Accounts::new);
        let waiters = namespaces.wait(namespace, of_namespace, VecDeque::new);
        waiters.push_back(Waiter {
            ticket: self.tickets,
            reply,
        });
        Ok(self.tickets)
    }

    /// Returns how many queries of an owner may run at a time, and how many of one of its namespaces.
    fn max_running(&self, payer: &Payer) -> (usize, usize) {
        let all_but = |others| self.connections.saturating_sub(others).max(1);
        match payer {
            // A sweep does not wait for a query of retention. Each task runs one at a time.
            Payer::Service => (self.connections, self.connections),
            Payer::Operators | Payer::Namespace(_) => (all_but(1), all_but(1)),
            Payer::Token(_) => (all_but(1), all_but(2)),
        }
    }

    /// Takes the query with the next turn, if there is a connection for it.
    pub(super) fn next(&mut self) -> Option<(Keys, Waiter)> {
        if self.running >= self.connections {
            return None;
        }
        let has_waiter = |waiters: &VecDeque<Waiter>| !waiters.is_empty();
        let payer = self.owners.next(|it| it.next(has_waiter).is_some())?;
        let namespaces = self.owners.content(&payer)?;
        let namespace = namespaces.next(has_waiter)?;
        let waiter = namespaces.content(&namespace)?.pop_front()?;
        namespaces.begin(&namespace);
        self.owners.begin(&payer);
        self.waiting -= 1;
        self.running += 1;
        Some(((payer, namespace), waiter))
    }

    /// Counts a query that ends, and charges its cost.
    pub(super) fn end(&mut self, (payer, namespace): &Keys, cost: Duration) {
        self.running -= 1;
        if let Some(namespaces) = self.owners.content(payer) {
            namespaces.end(namespace, cost);
        }
        self.owners.end(payer, cost);
    }

    /// Removes a query that still waits.
    pub(super) fn leave(&mut self, (payer, namespace): &Keys, ticket: u64) {
        let Some(namespaces) = self.owners.content(payer) else {
            return;
        };
        let waiters = namespaces.content(namespace);
        let position = waiters.as_ref().and_then(|waiters| {
            let mut tickets = waiters.iter().map(|waiter| waiter.ticket);
            tickets.position(|it| it == ticket)
        });
        if let (Some(waiters), Some(position)) = (waiters, position) {
            waiters.remove(position);
            namespaces.leave(namespace);
            self.owners.leave(payer);
            self.waiting -= 1;
        }
    }
}
