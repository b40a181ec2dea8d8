//! The tail: reads the new rows of all groups, while there are any.
//!
//! It has a connection of its own, because it must not wait for those of calls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use diesel::result::Error as DieselError;
use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Feed,
    begin::{Wanted, find_begins},
    group::Group,
    read::{Bounds, Cursor, ScopeRows, TAIL, read_namespaces, read_prefix},
    scope::{Scope, TransitionMatch},
};
use crate::{
    db::{DatabaseAddress, Session, connect, planner::BATCH_SETTINGS},
    domain::{
        error::{Error, WatchEnd},
        position::Position,
    },
    util::{backoff::jittered, error_chain::error_chain},
};

/// Interval at which rows are looked for that another process wrote.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Minimum pause between two reads. Rows that commit meanwhile are read together.
const MIN_PAUSE: Duration = Duration::from_millis(1);
/// Pauses before rows are looked for again that were above the horizon: the first, and the longest.
const HORIZON_PAUSES: (Duration, Duration) = (Duration::from_millis(2), POLL_INTERVAL);
/// Pause before another connection is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How many namespaces one statement reads.
const NAMESPACES: usize = 500;
/// How long a statement of the tail may take.
const TIMEOUT: &str = "SET statement_timeout = '8s'; SET client_connection_check_interval = '2s'";

impl Feed {
    /// Reads new rows for all readers. Never completes.
    pub async fn run(&self, address: &DatabaseAddress) {
        loop {
            while self.groups().is_empty() {
                self.0.woken.notified().await;
            }
            if let Err(error) = self.follow(address).await {
                let cause = error_chain(&*error);
                tracing::debug!(cause, "the tail of the journal lost its connection");
                sleep(RECONNECT_PAUSE + jittered(RECONNECT_PAUSE)).await;
            }
        }
    }

    /// Reads new rows until there is no group.
    async fn follow(
        &self,
        address: &DatabaseAddress,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut session = connect(address).await?;
        session.batch_execute(BATCH_SETTINGS).await?;
        session.batch_execute(TIMEOUT).await?;
        let mut tail = Tail {
            feed: self.clone(),
            session,
            unsettled: HashMap::new(),
        };
        tail.check_groups().await?;
        tail.run().await?;
        Ok(())
    }
}

struct Tail {
    feed: Feed,
    session: Session,
    /// The groups that may have rows above the horizon, and the xid below which those are.
    unsettled: HashMap<Scope, u64>,
}

type Groups = Vec<(Scope, Arc<Group>)>;

impl Tail {
    /// Ends the groups whose last row is gone: the database was failed over to a server that lacks it, or
    /// was restored.
    async fn check_groups(&mut self) -> Result<(), DieselError> {
        let groups: Groups = self.groups();
        let readers = groups.iter().map(|(scope, group)| {
            let after = Some(group.through());
            (
                scope.clone(),
                Wanted {
                    after,
                    bridge_id: None,
                },
            )
        });
        let readers: Vec<_> = readers.collect();
        let begins = find_begins(&mut self.session, &readers).await?;
        for ((scope, group), begin) in groups.iter().zip(begins) {
            if !begin.is_complete() {
                self.fail(scope, group, begin.floor);
            }
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<(), DieselError> {
        let mut polled_at = None;
        let mut horizon = 0;
        let mut horizon_pause = HORIZON_PAUSES.0;
        loop {
            let groups = self.groups();
            if groups.is_empty() {
                return Ok(());
            }
            let begun = Instant::now();
            let is_poll = polled_at.is_none_or(|at| begun >= at + POLL_INTERVAL);
            if is_poll {
                polled_at = Some(begun);
            }
            let changed = std::mem::take(&mut *self.feed.changed());
            let is_due = |(scope, _): &(Scope, Arc<Group>)| {
                is_poll
                    || self.unsettled.contains_key(scope)
                    || changed.iter().any(|namespace| scope.includes(namespace))
            };
            let due: Groups = groups.into_iter().filter(is_due).collect();
            if !due.is_empty() {
                let now = self.read(&due).await?;
                let has_moved = now > horizon;
                horizon = now;
                horizon_pause = match has_moved {
                    true => HORIZON_PAUSES.0,
                    false => (horizon_pause * 2).min(HORIZON_PAUSES.1),
                };
            }
            let pause = begun.elapsed().max(MIN_PAUSE);
            sleep(pause).await;
            let until = match self.unsettled.is_empty() {
                true => polled_at.map_or(begun, |at| at + POLL_INTERVAL),
                false => begun + horizon_pause.max(pause),
            };
            let _ = timeout_at(until, self.feed.0.woken.notified()).await;
        }
    }

    fn groups(&self) -> Groups {
        let groups = self.feed.groups();
        groups
            .iter()
            .map(|(scope, group)| (scope.clone(), Arc::clone(group)))
            .collect()
    }

    /// Reads the new rows of some groups. Returns the horizon.
    async fn read(&mut self, groups: &Groups) -> Result<u64, DieselError> {
        let (mut horizon, mut namespaces) = (0, Vec::new());
        for (scope, group) in groups {
            let cursor = |name: &String| Cursor {
                namespace: name.clone(),
                after: group.through(),
            };
            match scope {
                Scope::Namespace(name) => namespaces.push((scope, group, cursor(name))),
                Scope::Prefix(prefix) => {
                    let all = TransitionMatch::default();
                    let session = &mut self.session;
                    let read = read_prefix(session, cursor(prefix), &all, TAIL).await?;
                    horizon = read.bounds.horizon;
                    for rows in read.scopes {
                        self.give(scope, group, rows, read.bounds);
                    }
                }
            }
        }
        for part in namespaces.chunks(NAMESPACES) {
            let cursors: Vec<_> = part.iter().map(|(_, _, cursor)| cursor.clone()).collect();
            let all = TransitionMatch::default();
            let read = read_namespaces(&mut self.session, &cursors, &all, TAIL).await?;
            horizon = read.bounds.horizon;
            for ((scope, group, _), rows) in part.iter().zip(read.scopes) {
                self.give(scope, group, rows, read.bounds);
            }
        }
        Ok(horizon)
    }

    /// Gives a group its new rows. Notes whether it may have further ones.
    fn give(&mut self, scope: &Scope, group: &Arc<Group>, rows: ScopeRows, bounds: Bounds) {
        let through = group.through();
        if let Some(floor) = rows.floor.filter(|floor| *floor > through) {
            return self.fail(scope, group, floor);
        }
        // A row that was committed before this read is below this number.
        let above = match self.unsettled.get(scope) {
            Some(above) => *above,
            None => bounds.xmax,
        };
        match rows.is_complete && bounds.horizon >= above {
            true => drop(self.unsettled.remove(scope)),
            false => drop(self.unsettled.insert(scope.clone(), above)),
        }
        group.give(rows);
    }

    /// Ends the readers of a group, whose rows are no longer complete.
    fn fail(&mut self, scope: &Scope, group: &Arc<Group>, floor: Position) {
        self.unsettled.remove(scope);
        self.feed.remove(scope, group);
        group.fail(&Error::Watch(WatchEnd::Gone {
            oldest_position: floor.to_text(&scope.to_string()),
        }));
    }
}
