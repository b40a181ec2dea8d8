//! The feed: follows the journal for many readers.
//!
//! The [tail](tail) reads new rows for all readers of the process together, and gives them to the
//! [group] of each scope. A [reader](follower) that is not at the end of the journal, because it has just
//! begun or is slow, reads [pages](read) of its own until it is.
//!
//! A row is read once all transactions below its own have ended (the horizon), so that none can appear
//! before it later. It is looked for when a batch of this process commits, and periodically.

mod begin;
mod changes;
mod filters;
mod follower;
mod group;
mod horizon;
mod notify;
mod open;
mod read;
pub mod scope;
mod shared_row;
mod tail;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use uuid::Uuid;

pub(crate) use self::read::snapshot_bounds;
pub use self::{
    begin::{Begin, Committed, Wanted},
    follower::{Follower, Following, gone},
    open::{FindBegins, find_begin},
    shared_row::SharedRow,
};
use self::{
    changes::Changes,
    group::{End, Group, Taken},
    scope::Scope,
};
use crate::{db::DatabaseAddress, domain::position::Position, ops::metrics::FeedMetrics};

/// The feed of a process. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    namespaces: Branch,
    /// Those of patterns such as `team-*`, which read all namespaces that match. They cost more, and must
    /// not delay the others.
    patterns: Branch,
}

/// The readers of one kind of scope, which share a tail. Cheap to clone.
#[derive(Clone)]
struct Branch(Arc<Inner>);

type Groups = HashMap<Scope, Arc<Group>>;

struct Inner {
    /// Whether the tail tells other processes of the changes of this one.
    is_teller: bool,
    /// Names this process to others.
    process: Uuid,
    groups: Mutex<Groups>,
    /// Whether the tail wants to know of changes, which writers read without a lock.
    wants_changes: AtomicBool,
    /// The namespaces in which this process has written rows.
    changed: Mutex<Changes>,
    /// Signalled by each change, and by each new group.
    woken: Notify,
}

impl Default for Feed {
    fn default() -> Self {
        let process = Uuid::now_v7();
        Feed {
            namespaces: Branch::new(process, true),
            patterns: Branch::new(process, false),
        }
    }
}

impl Feed {
    /// Reads new rows for all readers. Never completes.
    pub async fn run(&self, address: &DatabaseAddress, metrics: &FeedMetrics) {
        let namespaces = self.namespaces.run(address, metrics);
        tokio::join!(namespaces, self.patterns.run(address, metrics));
    }

    /// Notes that rows of the journal were committed in some namespaces.
    pub fn committed<'a>(&self, namespaces: impl Iterator<Item = &'a str> + Clone) {
        self.namespaces.committed(namespaces.clone());
        self.patterns.committed(namespaces);
    }

    fn branch(&self, scope: &Scope) -> &Branch {
        match scope {
            Scope::Namespace(_) => &self.namespaces,
            Scope::Prefix(_) => &self.patterns,
        }
    }
}

impl Branch {
    fn new(process: Uuid, is_teller: bool) -> Self {
        Branch(Arc::new(Inner {
            is_teller,
            process,
            groups: Mutex::default(),
            wants_changes: AtomicBool::default(),
            changed: Mutex::default(),
            woken: Notify::default(),
        }))
    }

    /// Returns what its scopes are, for metrics.
    fn name(&self) -> &'static str {
        match self.0.is_teller {
            true => "namespaces",
            false => "patterns",
        }
    }

    fn committed<'a>(&self, mut namespaces: impl Iterator<Item = &'a str>) {
        if !self.0.wants_changes.load(Ordering::Relaxed) {
            return;
        }
        let Some(first) = namespaces.next() else {
            return;
        };
        let mut changed = self.changed();
        changed.insert(first);
        namespaces.for_each(|namespace| changed.insert(namespace));
        drop(changed);
        self.0.woken.notify_one();
    }

    /// Removes a group, unless another one has taken its place.
    fn remove(&self, scope: &Scope, group: &Arc<Group>) {
        self.remove_from(&mut self.groups(), scope, group);
    }

    fn remove_from(&self, groups: &mut Groups, scope: &Scope, group: &Arc<Group>) {
        if groups.get(scope).is_some_and(|it| Arc::ptr_eq(it, group)) {
            groups.remove(scope);
        }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_wants_changes(&self, wants: bool) {
        self.0.wants_changes.store(wants, Ordering::Relaxed);
    }

    fn changed(&self) -> MutexGuard<'_, Changes> {
        let changed = self.0.changed.lock();
        changed.unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a reader that has read all rows up to `through`. If it is the first of its scope, the tail
    /// begins there. Otherwise the reader may have to read some rows itself.
    fn join(
        &self,
        scope: &Scope,
        wanted: &Arc<scope::TransitionMatch>,
        through: Position,
    ) -> Membership {
        let mut groups = self.groups();
        let group = groups.entry(scope.clone());
        let group = Arc::clone(group.or_insert_with(|| Arc::new(Group::new(through))));
        let (number, woken, begins_after) = group.join(Arc::clone(wanted));
        drop(groups);
        self.0.woken.notify_one();
        Membership {
            branch: self.clone(),
            scope: scope.clone(),
            group,
            number,
            woken,
            begins_after,
        }
    }
}

/// The place of a reader in a group, until it is dropped.
struct Membership {
    branch: Branch,
    scope: Scope,
    group: Arc<Group>,
    number: u64,
    woken: Arc<Notify>,
    /// The group gives it the rows after this position.
    begins_after: Position,
}

impl Membership {
    fn take(&self) -> Taken {
        self.group.take(self.number)
    }

    fn end(&self) -> Option<End> {
        self.group.end(self.number)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // No reader joins the group meanwhile.
        let mut groups = self.branch.groups();
        if self.group.leave(self.number) {
            self.branch
                .remove_from(&mut groups, &self.scope, &self.group);
        }
    }
}
