//! Notifications between the processes on a database: who watches, and where rows were committed.
//!
//! They are sent on the connection of the tail, after the commits that they tell of. NOTIFY within a
//! transaction takes a lock of the whole database at its commit. A process sends changes only while
//! another one watches. Each notification begins with the id of its process and a space. Notifications
//! only save time: rows are looked for periodically, too.

use std::time::Duration;

use diesel::{
    result::Error as DieselError,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};
use tokio_postgres::Notification;
use uuid::Uuid;

use super::changes::Changes;
use crate::db::{Session, batch::statement::statement};

/// Minimum interval of notifications of changes. Those in between are told together.
const INTERVAL: Duration = Duration::from_millis(10);
/// Interval at which a process says that it watches.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);
/// How long after its last announcement a process is taken to watch.
const WATCHES_FOR: Duration = Duration::from_secs(30);

/// Asks all processes whether they watch.
const QUESTION: &str = "?";
/// Says that the process watches.
const WATCHING: &str = "watching";

statement! {
    /// Selects the table of the journal.
    struct FindTable {}
    returns BigInt, is_batch: true;
    "SELECT 'fsm_transitions'::regclass::oid::bigint"
}

statement! {
    /// Sends a notification.
    struct Notify { channel: String, payload: String, }
    returns Text, is_batch: true;
    "SELECT pg_notify(" {channel: Text} ", " {payload: Text} ")::text"
}

/// The notifications of a session.
pub(super) struct Notifications {
    received: UnboundedReceiver<Notification>,
    /// This process, whose own notifications come back: those of this session, and of the other tail's.
    process: Uuid,
    watchers: String,
    changes: String,
    /// Whether a notification came back.
    is_heard: bool,
    is_asked: bool,
    announced_at: Option<Instant>,
    others_until: Option<Instant>,
    sent_at: Option<Instant>,
    /// The changes that are not told yet.
    untold: Changes,
}

impl Notifications {
    /// Listens to the other processes, and asks them whether they watch.
    pub(super) async fn listen(session: &mut Session, process: Uuid) -> Result<Self, DieselError> {
        let Some(received) = session.take_notifications() else {
            return Err(DieselError::NotFound);
        };
        let table: i64 = FindTable {}.get_result(session).await?;
        // Each schema has a journal of its own.
        let [watchers, changes] =
            ["watchers", "changes"].map(|name| format!("bridgebook_{table}_{name}"));
        let listen = format!("LISTEN {watchers}; LISTEN {changes}");
        session.batch_execute(&listen).await?;
        let notifications = Notifications {
            received,
            process,
            watchers,
            changes,
            is_heard: false,
            is_asked: false,
            announced_at: None,
            others_until: None,
            sent_at: None,
            untold: Changes::default(),
        };
        send(session, &notifications.watchers, process, QUESTION).await?;
        Ok(notifications)
    }

    /// Returns whether notifications arrive on the session. Through some poolers none does.
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Returns whether another process watches.
    pub(super) fn do_others_watch(&self) -> bool {
        self.others_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Waits for a notification, and takes all that have arrived. Returns the changes of other processes;
    /// `None` after the connection broke.
    pub(super) async fn receive(&mut self) -> Option<Changes> {
        let first = self.received.recv().await?;
        let mut changes = Changes::default();
        self.note(&first, &mut changes);
        self.take(&mut changes);
        Some(changes)
    }

    /// Takes the changes of other processes that have arrived.
    pub(super) fn take(&mut self, changes: &mut Changes) {
        while let Ok(next) = self.received.try_recv() {
            self.note(&next, changes);
        }
    }

    fn note(&mut self, notification: &Notification, changes: &mut Changes) {
        let payload = notification.payload().split_once(' ');
        let Some((Ok(process), content)) = payload.map(|(id, rest)| (Uuid::parse_str(id), rest))
        else {
            return;
        };
        let is_own = process == self.process;
        self.is_heard |= is_own;
        match content {
            _ if is_own => {}
            _ if notification.channel() == self.changes => changes.insert_payload(content),
            QUESTION => self.is_asked = true,
            WATCHING => self.others_until = Some(Instant::now() + WATCHES_FOR),
            _ => {}
        }
    }

    /// Returns when changes are due that are not told yet.
    pub(super) fn told_at(&self) -> Option<Instant> {
        let at = self.sent_at.filter(|_| !self.untold.is_empty());
        at.map(|at| at + INTERVAL)
    }

    /// Tells other processes of changes, at most every 10 ms, and that this one watches.
    pub(super) async fn tell(
        &mut self,
        session: &mut AsyncPgConnection,
        changes: &Changes,
        watches: bool,
    ) -> Result<(), DieselError> {
        let now = Instant::now();
        let is_due = |at: Option<Instant>, interval| at.is_none_or(|at| now >= at + interval);
        if watches && (self.is_asked || is_due(self.announced_at, ANNOUNCE_INTERVAL)) {
            send(session, &self.watchers, self.process, WATCHING).await?;
            self.announced_at = Some(now);
        }
        self.is_asked = false;
        if !self.do_others_watch() {
            self.untold.take();
            return Ok(());
        }
        self.untold.merge(changes);
        if self.untold.is_empty() || !is_due(self.sent_at, INTERVAL) {
            return Ok(());
        }
        self.sent_at = Some(now);
        let payload = self.untold.take().payload();
        send(session, &self.changes, self.process, &payload).await
    }
}

async fn send(
    session: &mut AsyncPgConnection,
    channel: &str,
    process: Uuid,
    content: &str,
) -> Result<(), DieselError> {
    let notify = Notify {
        channel: channel.to_owned(),
        payload: format!("{process} {content}"),
    };
    notify.execute(session).await?;
    Ok(())
}
