//! The tail: reads the new rows of all groups of its branch, while there are any.
//!
//! It has a connection of its own, because it must not wait for those of calls. The connection opens
//! with the first reader, or with the first change that this process may have to tell others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Branch,
    changes::Changes,
    group::{Demand, Group},
    horizon::Horizon,
    notify::Notifications,
    read::{Cursor, Read, TAIL, id_array, read_namespaces, read_prefix},
    scope::{Scope, TransitionMatch},
};
use crate::{
    db::{DatabaseAddress, DbError, Session, connect, planner::BATCH_SETTINGS},
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
/// How long a pattern is not read after its read took too long. Its readers read pages meanwhile, and the
/// other patterns do not wait for it.
const SLOW_PAUSE: Duration = Duration::from_secs(30);
/// How many namespaces one statement reads.
const NAMESPACES: usize = 500;
/// How long a statement of the tail may take.
const TIMEOUT: &str = "SET statement_timeout = '8s'; SET client_connection_check_interval = '2s'";

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Branch {
    /// Reads new rows for all readers. Never completes.
    pub(super) async fn run(&self, address: &DatabaseAddress, metrics: &FeedMetrics) {
        let mut failed_since = None;
        loop {
            self.set_wants_changes(self.0.is_teller);
            metrics.set_horizon_age(self.name(), Duration::ZERO);
            while self.groups().is_empty() && self.changed().is_empty() {
                self.0.woken.notified().await;
            }
            if let Err(error) = self.follow(address, metrics, &mut failed_since).await {
                if failed_since.is_none() && !self.groups().is_empty() {
                    let cause = error_chain(&*error);
                    tracing::warn!(
                        cause,
                        watched = self.name(),
                        "watches wait: the connection that reads the journal broke"
                    );
                }
                failed_since.get_or_insert(Instant::now());
            }
            sleep(RECONNECT_PAUSE + jittered(RECONNECT_PAUSE)).await;
        }
    }

    /// Reads new rows until the connection breaks.
    async fn follow(
        &self,
        address: &DatabaseAddress,
        metrics: &FeedMetrics,
        failed_since: &mut Option<Instant>,
    ) -> Result<(), Failure> {
        let mut session = connect(address).await?;
        session.batch_execute(BATCH_SETTINGS).await?;
        session.batch_execute(TIMEOUT).await?;
        let notifications = Notifications::listen(&mut session, self.0.process).await?;
        let mut tail = Tail {
            branch: self.clone(),
            session,
            notifications,
            heard: Changes::default(),
            metrics: metrics.clone(),
            unsettled: HashSet::new(),
            has_unread: false,
            has_waiting: false,
            slow_until: HashMap::new(),
            read_all_at: None,
            horizon: Horizon::default(),
            horizon_pause: HORIZON_PAUSES.0,
        };
        if failed_since.is_some() {
            // The database may be another server, which lacks the last rows.
            for (scope, group) in tail.groups() {
                tail.lose(&scope, &group);
            }
        }
        tail.round().await?;
        if let Some(since) = failed_since.take()
            && !self.groups().is_empty()
        {
            let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let watched = self.name();
            tracing::info!(
                milliseconds,
                watched,
                "watches go on: the journal is read again"
            );
        }
        loop {
            tail.wait().await?;
            tail.round().await?;
        }
    }
}

struct Tail {
    branch: Branch,
    session: Session,
    notifications: Notifications,
    /// The namespaces in which other processes have written rows.
    heard: Changes,
    metrics: FeedMetrics,
    /// The groups with more rows, which are mostly above the horizon. Each round reads them.
    unsettled: HashSet<Scope>,
    /// Whether one of them has rows that can be read.
    has_unread: bool,
    /// Whether one of them has rows above the horizon.
    has_waiting: bool,
    /// The patterns whose read took too long, and until when they are not read.
    slow_until: HashMap<Scope, Instant>,
    /// When all groups were last read.
    read_all_at: Option<Instant>,
    horizon: Horizon,
    horizon_pause: Duration,
}

type Groups = Vec<(Scope, Arc<Group>)>;

impl Tail {
    /// Reads the groups that may have new rows, and tells other processes of those of this one.
    async fn round(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let groups = self.groups();
        let others_watch = self.branch.0.is_teller && self.notifications.do_others_watch();
        self.branch
            .set_wants_changes(!groups.is_empty() || others_watch);
        {
            let open = self.branch.groups();
            self.unsettled.retain(|scope| open.contains_key(scope));
        }
        let mut changes = self.branch.changed().take();
        let told = match self.branch.0.is_teller {
            true => &changes,
            false => &Changes::default(),
        };
        let tell = self
            .notifications
            .tell(&mut self.session, told, !groups.is_empty());
        timeout(READ_TIMEOUT, tell).await??;
        self.notifications.take(&mut self.heard);
        changes.merge(&self.heard.take());
        let is_all = self
            .read_all_at
            .is_none_or(|at| begun >= at + self.read_interval());
        if is_all {
            self.read_all_at = Some(begun);
            groups.iter().for_each(|(_, group)| group.trim());
        }
        self.slow_until.retain(|_, until| begun < *until);
        let due = groups.into_iter().filter(|(scope, group)| {
            if self.slow_until.contains_key(scope) {
                return false;
            }
            let is_changed = is_all || group.is_new() || changes.includes(scope);
            is_changed || self.unsettled.contains(scope)
        });
        let due = due.map(|(scope, group)| Due {
            demand: group.demand(),
            scope,
            group,
        });
        let due: Vec<Due> = due.collect();
        (self.has_unread, self.has_waiting) = (false, false);
        let horizon = match due.is_empty() {
            true => self.horizon.xid(),
            false => self.read(&due).await?,
        };
        self.note_horizon(horizon);
        timeout(READ_TIMEOUT, self.horizon.log(&mut self.session)).await??;
        // Reading takes at most half of the time.
        sleep(begun.elapsed().max(MIN_PAUSE)).await;
        Ok(())
    }

    fn note_horizon(&mut self, horizon: u64) {
        self.horizon_pause = match self.horizon.note(horizon, self.has_waiting) {
            true => HORIZON_PAUSES.0,
            false => (self.horizon_pause * 2).min(HORIZON_PAUSES.1),
        };
        let name = self.branch.name();
        self.metrics.set_horizon_age(name, self.horizon.age());
    }

    fn read_interval(&self) -> Duration {
        match self.notifications.is_heard() {
            true => READ_INTERVAL,
            false => POLL_INTERVAL,
        }
    }

    /// Waits until something may have changed, or the connection breaks.
    async fn wait(&mut self) -> Result<(), Failure> {
        let is_idle = self.groups().is_empty();
        let until_read = self.read_all_at.map_or(Duration::ZERO, |at| {
            (at + self.read_interval()).saturating_duration_since(Instant::now())
        });
        let pause = match self.notifications.told_at() {
            _ if self.has_unread => Duration::ZERO,
            _ if self.has_waiting => until_read.min(self.horizon_pause),
            Some(at) => until_read.min(at.saturating_duration_since(Instant::now())),
            None => until_read,
        };
        tokio::select! {
            () = self.branch.0.woken.notified() => {}
            changes = self.notifications.receive() => {
                self.heard.merge(&changes.ok_or("the connection closed")?);
            }
            () = sleep(pause), if !is_idle || self.notifications.told_at().is_some() => {}
        }
        Ok(())
    }

    fn groups(&self) -> Groups {
        let groups = self.branch.groups();
        groups
            .iter()
            .map(|(scope, group)| (scope.clone(), Arc::clone(group)))
            .collect()
    }

    /// Reads the new rows of some groups. Returns the horizon.
    async fn read(&mut self, due: &[Due]) -> Result<u64, Failure> {
        // The readers choose among the rows of their entities.
        let all = TransitionMatch::default();
        let mut horizon = self.horizon.xid();
        let (namespaces, patterns): (Vec<_>, Vec<_>) = due
            .iter()
            .map(|due| (due, due.cursor()))
            .partition(|(due, _)| matches!(due.scope, Scope::Namespace(_)));
        let mut rest = &*namespaces;
        while !rest.is_empty() {
            let part = rest.iter().take(NAMESPACES);
            let cursors: Vec<_> = part.clone().map(|(_, cursor)| cursor.clone()).collect();
            let read = read_namespaces(&mut self.session, &cursors, &all, TAIL);
            let read = timeout(READ_TIMEOUT, read).await??;
            horizon = read.bounds.horizon;
            // Large rows of one namespace may have left no memory for those of the next ones.
            rest = rest.get(read.scopes.len()..).unwrap_or_default();
            self.give(part.map(|(due, _)| *due), read);
        }
        for (due, cursor) in patterns {
            let read = read_prefix(&mut self.session, cursor, &all, TAIL);
            match timeout(READ_TIMEOUT, read).await?.map_err(DbError::from) {
                Ok(read) => {
                    horizon = read.bounds.horizon;
                    self.give([due].into_iter(), read);
                }
                Err(DbError::StatementTimeout(_)) => {
                    let until = Instant::now() + SLOW_PAUSE;
                    self.slow_until.insert(due.scope.clone(), until);
                    self.lose(&due.scope, &due.group);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(horizon)
    }

    /// Gives groups their new rows. Notes which may have more.
    fn give<'a>(&mut self, due: impl Iterator<Item = &'a Due>, read: Read) {
        self.metrics.reads.inc();
        for (due, mut rows) in due.zip(read.scopes) {
            if rows.has_gap {
                // Some of its readers may have read further.
                self.lose(&due.scope, &due.group);
                continue;
            }
            rows.drop_split(due.demand.after);
            self.has_unread |= !rows.is_complete;
            self.has_waiting |= rows.has_above;
            match rows.is_complete && !rows.has_above {
                true => drop(self.unsettled.remove(&due.scope)),
                false => drop(self.unsettled.insert(due.scope.clone())),
            }
            self.metrics.read_by_tail(rows.rows.len());
            due.group.give(rows, &due.demand, read.bounds.horizon);
        }
    }

    /// Lets the readers of a group read pages.
    fn lose(&self, scope: &Scope, group: &Arc<Group>) {
        self.branch.remove(scope, group);
        group.lose();
    }
}

/// A group that may have new rows.
struct Due {
    scope: Scope,
    group: Arc<Group>,
    demand: Demand,
}

impl Due {
    fn cursor(&self) -> Cursor {
        let namespace = match &self.scope {
            Scope::Namespace(name) => name,
            Scope::Prefix(prefix) => prefix,
        };
        Cursor {
            namespace: namespace.clone(),
            after: self.demand.after,
            entity_ids: self.demand.entity_ids.as_deref().map(id_array),
        }
    }
}
