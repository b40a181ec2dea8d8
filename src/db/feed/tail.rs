//! The tail: reads the new rows of all groups, while there are any.
//!
//! It has a connection of its own, because it must not wait for those of calls. The connection opens
//! with the first reader, or with the first change that this process may have to tell others.

use std::{collections::HashMap, sync::Arc, time::Duration};

use diesel::result::Error as DieselError;
use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Feed,
    begin::{Wanted, find_begins},
    group::Group,
    horizon::Horizon,
    notify::Notifications,
    read::{Bounds, Cursor, ScopeRows, TAIL, read_namespaces, read_prefix},
    scope::{Scope, TransitionMatch},
};
use crate::{
    db::{DatabaseAddress, Session, connect, planner::BATCH_SETTINGS},
    domain::{
        error::{Error, WatchEnd},
        position::Position,
    },
    ops::metrics::FeedMetrics,
    util::{backoff::jittered, error_chain::error_chain},
};

/// Interval at which all groups are read, for rows of other processes whose notification was lost, or
/// that never notify.
const READ_INTERVAL: Duration = Duration::from_secs(5);
/// The same interval while no notifications arrive.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Minimum pause between two reads. Rows that commit meanwhile are read together: most of what a read
/// costs is the statement, not its rows.
const MIN_PAUSE: Duration = Duration::from_millis(3);
/// Pauses before rows are looked for again that were above the horizon: the first, and the longest.
const HORIZON_PAUSES: (Duration, Duration) = (Duration::from_millis(2), POLL_INTERVAL);
/// Pause before another connection is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long a read may take, before the connection is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How many namespaces one statement reads.
const NAMESPACES: usize = 500;
/// How long a statement of the tail may take.
const TIMEOUT: &str = "SET statement_timeout = '8s'; SET client_connection_check_interval = '2s'";

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Feed {
    /// Reads new rows for all readers. Never completes.
    pub async fn run(&self, address: &DatabaseAddress, metrics: &FeedMetrics) {
        loop {
            self.set_wants_changes(true);
            while self.groups().is_empty() && self.changed().is_empty() {
                self.0.woken.notified().await;
            }
            if let Err(error) = self.follow(address, metrics).await {
                let cause = error_chain(&*error);
                tracing::debug!(cause, "the tail of the journal lost its connection");
            }
            sleep(RECONNECT_PAUSE + jittered(RECONNECT_PAUSE)).await;
        }
    }

    /// Reads new rows until the connection breaks.
    async fn follow(
        &self,
        address: &DatabaseAddress,
        metrics: &FeedMetrics,
    ) -> Result<(), Failure> {
        let mut session = connect(address).await?;
        session.batch_execute(BATCH_SETTINGS).await?;
        session.batch_execute(TIMEOUT).await?;
        let notifications = Notifications::listen(&mut session).await?;
        let mut tail = Tail {
            feed: self.clone(),
            session,
            notifications,
            metrics: metrics.clone(),
            unsettled: HashMap::new(),
            read_all_at: None,
            horizon: Horizon::default(),
            horizon_pause: HORIZON_PAUSES.0,
        };
        tail.check_groups().await?;
        loop {
            timeout(READ_TIMEOUT, tail.round()).await??;
            tail.wait().await;
        }
    }
}

struct Tail {
    feed: Feed,
    session: Session,
    notifications: Notifications,
    metrics: FeedMetrics,
    /// The groups that may have rows above the horizon, and the xid below which those are.
    unsettled: HashMap<Scope, u64>,
    /// When all groups were last read.
    read_all_at: Option<Instant>,
    horizon: Horizon,
    horizon_pause: Duration,
}

type Groups = Vec<(Scope, Arc<Group>)>;

impl Tail {
    /// Ends the groups whose last row is gone: the database was failed over to a server that lacks it, or
    /// was restored.
    async fn check_groups(&mut self) -> Result<(), DieselError> {
        let groups: Groups = self.groups();
        let readers = groups.iter().map(|(scope, group)| {
            let wanted = Wanted {
                after: Some(group.through()),
                bridge_id: None,
            };
            (scope.clone(), wanted)
        });
        let readers: Vec<_> = readers.collect();
        if readers.is_empty() {
            return Ok(());
        }
        let begins = find_begins(&mut self.session, &readers).await?;
        for ((scope, group), begin) in groups.iter().zip(begins) {
            if !begin.is_complete() {
                self.fail(scope, group, begin.floor);
            }
        }
        Ok(())
    }

    /// Reads the groups that may have new rows, and tells other processes of those of this one.
    async fn round(&mut self) -> Result<(), DieselError> {
        let begun = Instant::now();
        let groups = self.groups();
        let others_watch = self.notifications.do_others_watch();
        self.feed
            .set_wants_changes(!groups.is_empty() || others_watch);
        match groups.is_empty() {
            true => self.unsettled.clear(),
            false => {
                let open = self.feed.groups();
                self.unsettled.retain(|scope, _| open.contains_key(scope));
            }
        }
        let mut changes = self.feed.changed().take();
        let watches = !groups.is_empty();
        self.notifications
            .tell(&mut self.session, &changes, watches)
            .await?;
        self.notifications.take(&mut changes);
        let is_all = self
            .read_all_at
            .is_none_or(|at| begun >= at + self.read_interval());
        if is_all {
            self.read_all_at = Some(begun);
        }
        let is_due = |(scope, group): &(Scope, Arc<Group>)| {
            is_all
                || group.is_new()
                || self.unsettled.contains_key(scope)
                || changes.includes(scope)
        };
        let due: Groups = groups.into_iter().filter(is_due).collect();
        let horizon = match due.is_empty() {
            true => self.horizon.xid(),
            false => self.read(&due).await?,
        };
        self.note_horizon(horizon);
        self.horizon.log(&mut self.session).await?;
        // Reading takes at most half of the time.
        sleep(begun.elapsed().max(MIN_PAUSE)).await;
        Ok(())
    }

    fn note_horizon(&mut self, horizon: u64) {
        self.horizon_pause = match self.horizon.note(horizon, !self.unsettled.is_empty()) {
            true => HORIZON_PAUSES.0,
            false => (self.horizon_pause * 2).min(HORIZON_PAUSES.1),
        };
        self.metrics.set_horizon_age(self.horizon.age());
    }

    fn read_interval(&self) -> Duration {
        match self.notifications.is_heard() {
            true => READ_INTERVAL,
            false => POLL_INTERVAL,
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) {
        let is_idle = self.groups().is_empty();
        let until_read = self.read_all_at.map_or(Duration::ZERO, |at| {
            (at + self.read_interval()).saturating_duration_since(Instant::now())
        });
        let pause = match (self.unsettled.is_empty(), self.notifications.told_at()) {
            (false, _) => until_read.min(self.horizon_pause),
            (true, Some(at)) => until_read.min(at.saturating_duration_since(Instant::now())),
            (true, None) => until_read,
        };
        tokio::select! {
            () = self.feed.0.woken.notified() => {}
            changes = self.notifications.receive() => self.feed.changed().merge(&changes),
            () = sleep(pause), if !is_idle || self.notifications.told_at().is_some() => {}
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
                    self.metrics.reads.inc();
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
            self.metrics.reads.inc();
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
        self.metrics.read_by_tail(rows.rows.len());
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
