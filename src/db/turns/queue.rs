//! The queue of queries, with two levels of owners: tokens, and their namespaces.
//!
//! Tenants have slots of their own, and so have the service itself and operators. One connection is
//! kept from tenants.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::oneshot;

use super::{Turn, accounts::Accounts};
use crate::{
    db::{DbError, query::Owner},
    domain::{id::TokenId, namespace::Namespace},
};

/// Maximum number of waiting queries: of tenants, and of all others. Each waits for at most 1 s, in
/// which a connection runs some hundred small ones.
pub(super) const MAX_WAITING: usize = 1024;

/// A query fails at once if its expected wait is this many times as long as it can wait. The estimate
/// is rough, and low rather than high.
const HOPELESS: u32 = 2;

/// The first level of owners: all queries of a principal share its turns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Principal {
    Service,
    Operators,
    Token(TokenId),
    /// Of calls without a token. It has no second level.
    Namespace(Namespace),
}

impl Principal {
    fn is_tenant(&self) -> bool {
        matches!(self, Principal::Token(_) | Principal::Namespace(_))
    }
}

/// The keys of both levels. Only tokens have namespaces on the second level.
pub(super) type Keys = (Principal, Option<Namespace>);

/// Returns the keys of an owner.
pub(super) fn keys(owner: Owner) -> Keys {
    match owner {
        Owner::Service => (Principal::Service, None),
        Owner::Operators => (Principal::Operators, None),
        Owner::Tenant {
            token_id: Some(token_id),
            namespace,
        } => (Principal::Token(token_id), Some(namespace)),
        Owner::Tenant {
            token_id: None,
            namespace,
        } => (Principal::Namespace(namespace), None),
    }
}

/// The numbers of queries that run and that wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) running: usize,
    pub(super) waiting: usize,
}

/// The queries that run, and those that wait.
pub(super) struct Queue {
    /// How many queries may run at a time.
    connections: usize,
    /// How many of them may be queries of tenants.
    connections_for_tenants: usize,
    /// The load of tenants.
    pub(super) tenants: Load,
    /// The load of the service itself and of operators.
    pub(super) others: Load,
    last_waiter_id: u64,
    pub(super) owners: Accounts<Principal, Namespaces>,
}

type Namespaces = Accounts<Option<Namespace>, VecDeque<Waiter>>;

/// A query that waits for its turn.
pub(super) struct Waiter {
    id: u64,
    pub(super) reply: oneshot::Sender<Turn>,
}

impl Queue {
    /// Makes an empty queue for a number of connections. All but one are for tenants; if there is only
    /// one, tenants share it with the service and with operators.
    pub(super) fn new(connections: usize) -> Self {
        Queue {
            connections,
            connections_for_tenants: connections.saturating_sub(1).max(1),
            tenants: Load::default(),
            others: Load::default(),
            last_waiter_id: 0,
            owners: Accounts::new(),
        }
    }

    fn load(&mut self, principal: &Principal) -> &mut Load {
        match principal.is_tenant() {
            true => &mut self.tenants,
            false => &mut self.others,
        }
    }

    /// Adds a query that can wait for `patience`. Returns the id of the waiter.
    ///
    /// # Errors
    /// [`DbError::Busy`] if its owner has no slot left, or the turn would come long after `patience` ends.
    pub(super) fn push(
        &mut self,
        keys: &Keys,
        patience: Duration,
        reply: oneshot::Sender<Turn>,
    ) -> Result<u64, DbError> {
        let (principal, namespace) = keys;
        let free = MAX_WAITING.saturating_sub(self.load(principal).waiting);
        let free = free.saturating_sub(self.owners.waiting(principal));
        let namespaces = self.owners.content(principal);
        let (taken, expected_wait) = namespaces.map_or_else(Default::default, |it| {
            (it.waiting(namespace), it.expected_wait(namespace))
        });
        if taken >= free || expected_wait > patience * HOPELESS {
            return Err(DbError::Busy);
        }
        self.last_waiter_id += 1;
        self.load(principal).waiting += 1;
        let (of_principal, of_namespace) = self.max_running(principal);
        let namespaces = self.owners.wait(principal, of_principal, Accounts::new);
        let waiters = namespaces.wait(namespace, of_namespace, VecDeque::new);
        waiters.push_back(Waiter {
            id: self.last_waiter_id,
            reply,
        });
        Ok(self.last_waiter_id)
    }

    /// Returns how many queries of an owner may run at a time, and how many of one of its namespaces.
    fn max_running(&self, principal: &Principal) -> (usize, usize) {
        let all_but = |others| self.connections.saturating_sub(others).max(1);
        let tenants_but = |others| self.connections_for_tenants.saturating_sub(others).max(1);
        match principal {
            // A sweep does not wait for a query of retention. Each task runs one at a time.
            Principal::Service => (self.connections, self.connections),
            Principal::Operators => (all_but(1), all_but(1)),
            Principal::Namespace(_) => (tenants_but(1), tenants_but(1)),
            Principal::Token(_) => (tenants_but(1), tenants_but(2)),
        }
    }

    /// Takes the query with the next turn, if there is a connection for it.
    pub(super) fn next(&mut self) -> Option<(Keys, Waiter)> {
        if self.tenants.running + self.others.running >= self.connections {
            return None;
        }
        let tenants_may = self.tenants.running < self.connections_for_tenants;
        let has_waiter = |_: &_, waiters: &VecDeque<Waiter>| !waiters.is_empty();
        let principal = self.owners.next(|principal, it| {
            (tenants_may || !principal.is_tenant()) && it.next(has_waiter).is_some()
        })?;
        let namespaces = self.owners.content(&principal)?;
        let namespace = namespaces.next(has_waiter)?;
        let waiter = namespaces.content(&namespace)?.pop_front()?;
        namespaces.begin(&namespace);
        self.owners.begin(&principal);
        let load = self.load(&principal);
        load.waiting -= 1;
        load.running += 1;
        Some(((principal, namespace), waiter))
    }

    /// Counts a query that ends, and charges its cost.
    pub(super) fn end(&mut self, (principal, namespace): &Keys, cost: Duration) {
        self.load(principal).running -= 1;
        if let Some(namespaces) = self.owners.content(principal) {
            namespaces.end(namespace, cost);
        }
        self.owners.end(principal, cost);
    }

    /// Removes a query that still waits.
    pub(super) fn leave(&mut self, (principal, namespace): &Keys, waiter_id: u64) {
        let Some(namespaces) = self.owners.content(principal) else {
            return;
        };
        let waiters = namespaces.content(namespace);
        let position = waiters.as_ref().and_then(|waiters| {
            let mut waiters = waiters.iter();
            waiters.position(|waiter| waiter.id == waiter_id)
        });
        if let (Some(waiters), Some(position)) = (waiters, position) {
            waiters.remove(position);
            namespaces.leave(namespace);
            self.owners.leave(principal);
            self.load(principal).waiting -= 1;
        }
    }
}
