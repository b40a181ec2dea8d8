//! A reader of the feed: reads pages of its own until it is at the end of the journal, then takes its
//! rows from its group.

use std::{io, sync::Arc, time::Duration};

use diesel_async::AsyncPgConnection;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{
    Membership,
    begin::Committed,
    group::{End, Taken},
    read::{Cursor, PAGE, Read, id_array, read_namespaces, read_prefix},
    scope::{Scope, TransitionMatch},
    shared_row::SharedRow,
};
use crate::{
    db::{Database, DbError, Owner, Query, journal::Transition},
    domain::{
        error::{Error, Result, WatchEnd},
        id::TokenId,
        namespace::Namespace,
        position::Position,
    },
    util::backoff::jittered,
};

/// Pause before a reader joins its group again, because the group is ahead of the database.
const REJOIN_PAUSE: Duration = Duration::from_millis(200);

/// A request to follow the journal.
#[derive(Debug, Clone)]
pub struct Following {
    /// The namespace of the request; it may end in `*`.
    pub namespace: Namespace,
    /// The token of the caller.
    pub token_id: Option<TokenId>,
    /// The transitions that the reader wants.
    pub wanted: Arc<TransitionMatch>,
}

impl Following {
    /// Returns the owner of its queries.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::Tenant {
            token_id: self.token_id,
            namespace: self.namespace.clone(),
        }
    }
}

/// Reads a page of a reader.
struct ReadPage {
    following: Following,
    after: Position,
}

impl Query for ReadPage {
    type Answer = Read;

    fn owner(&self) -> Owner {
        self.following.owner()
    }

    fn leaves_rows(read: &Read) -> bool {
        read.is_cut
    }

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<Read>, DbError> {
        let wanted = &*self.following.wanted;
        let cursor = |namespace| Cursor {
            namespace,
            after: self.after,
            entity_ids: wanted.entity_id.map(|id| id_array(&[id])),
        };
        let read = match Scope::of(&self.following.namespace) {
            Scope::Namespace(name) => {
                read_namespaces(connection, &[cursor(name)], wanted, PAGE).await?
            }
            Scope::Prefix(prefix) => read_prefix(connection, cursor(prefix), wanted, PAGE).await?,
        };
        Ok(Ok(read))
    }
}

/// Follows the journal from a position on.
pub struct Follower {
    database: Database,
    following: Following,
    /// All rows up to this one were passed on, or do not match.
    cursor: Position,
    /// The last position up to there that is not between two rows of a commit.
    settled: Position,
    /// The last row that was passed on.
    passed_on: Position,
    /// The rows of these transactions are not passed on: they were committed before.
    skipped: Option<Committed>,
    membership: Option<Membership>,
    /// The next page, if it is being read. It is read in a task of its own, because its query holds a
    /// connection to the database, which must not wait for the client.
    page: Option<AbortOnDropHandle<Result<Read>>>,
    /// When the next page is to be read, after an outage or an overload.
    retry_at: Option<Instant>,
    /// All rows below this bound were passed on, or do not match.
    bound: Position,
}

impl Follower {
    /// Makes a reader of the rows after a position, without those of `skipped`.
    #[must_use]
    pub fn new(
        database: &Database,
        following: Following,
        after: Position,
        skipped: Option<Committed>,
    ) -> Self {
        // A reader that skips what is committed begins at the end of the journal.
        let is_at_end = skipped.is_some();
        let mut follower = Follower {
            database: database.clone(),
            following,
            cursor: after,
            settled: after,
            passed_on: after,
            skipped,
            membership: None,
            page: None,
            retry_at: None,
            bound: Position::default(),
        };
        if is_at_end {
            follower.join(after);
        }
        follower
    }

    /// Skips the rows of these transactions, in place of those that it was made with. To be called before
    /// the first row.
    pub fn skip(&mut self, committed: Committed) {
        self.skipped = Some(committed);
    }

    /// Returns whether it leaves out rows that were committed before it began. A reader that goes on after
    /// its position may get them.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipped.is_some()
    }

    /// Returns how far the reader has come, to go on after it.
    #[must_use]
    pub fn position(&self) -> Position {
        self.passed_on.max(self.settled)
    }

    /// Returns the last position that is not between two rows of a commit. `None` while rows were passed
    /// on after it: the others of their commit come next.
    pub fn settled(&mut self) -> Option<Position> {
        let is_live = self.is_live();
        let membership = self.membership.as_ref().filter(|_| is_live);
        if let Some(end) = membership.and_then(Membership::end) {
            self.reach(&end);
        }
        Some(self.settled).filter(|settled| *settled >= self.passed_on)
    }

    /// Waits for rows, and returns them in their order. May be dropped and called again.
    ///
    /// # Errors
    /// [`WatchEnd::Gone`] if rows are gone that the reader has not read, and errors of the
    /// database.
    pub async fn next(&mut self) -> Result<Vec<Arc<SharedRow>>> {
        loop {
            let rows = match self.is_live() {
                true => self.take().await?,
                false => self.read_page().await?,
            };
            if let Some(last) = rows.last() {
                self.passed_on = last.journal_position();
                return Ok(rows);
            }
        }
    }

    /// Returns whether the group has all rows after the cursor.
    fn is_live(&self) -> bool {
        let membership = self.membership.as_ref();
        membership.is_some_and(|it| it.begins_after <= self.cursor.max(self.bound))
    }

    /// Waits for rows of the group. Returns none if the reader is too late for them. Fails if the tail has lost
    /// its place while rows are left out: the database may be another server, which gives the numbers of
    /// lost transactions again.
    async fn take(&mut self) -> Result<Vec<Arc<SharedRow>>> {
        while let Some(membership) = &self.membership {
            match membership.take() {
                Taken::Rows { rows, settled } => {
                    let last = rows.last().map(|row| row.journal_position());
                    let rows = rows.into_iter().filter(|row| self.is_new(row)).collect();
                    self.advance(last.unwrap_or_default(), settled);
                    return Ok(rows);
                }
                Taken::None(end) => {
                    let woken = Arc::clone(&membership.woken);
                    self.reach(&end);
                    woken.notified().await;
                }
                Taken::Lagged => self.membership = None,
                Taken::Lost if self.is_skipping() => {
                    let cause = io::Error::other(
                        "the feed lost its place in the journal while the stream began",
                    );
                    return Err(Error::DatabaseUnavailable(Arc::new(cause)));
                }
                Taken::Lost => self.membership = None,
            }
        }
        Ok(Vec::new())
    }

    /// Reads the next page, or waits until it can be read. Returns none after an outage or an overload.
    /// At the end of the journal, the reader joins its group.
    async fn read_page(&mut self) -> Result<Vec<Arc<SharedRow>>> {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
            self.retry_at = None;
        }
        let page = match self.page.take() {
            Some(page) => page,
            None => self.next_page(),
        };
        let read = self.page.insert(page).await;
        self.page = None;
        let read = match read.unwrap_or_else(|error| Err(Error::Internal(Arc::new(error)))) {
            Ok(read) => read,
            Err(error) => {
                let pause = error.retry_after().ok_or(error)?;
                self.retry_at = Some(Instant::now() + jittered(pause));
                return Ok(Vec::new());
            }
        };
        let mut page = read.scopes.into_iter().next().unwrap_or_default();
        let is_restored = |skipped: &Committed| !skipped.may_precede(read.bounds.xmax);
        if page.has_gap || self.skipped.as_ref().is_some_and(is_restored) {
            return Err(gone(&self.following.namespace, page.floor));
        }
        page.drop_split(self.cursor);
        let (last, settled) = (page.last, page.settled(self.cursor));
        let (is_complete, floor) = (page.is_complete, page.floor);
        self.database.metrics().feed().read_by_page(page.rows.len());
        let rows = page.rows.into_iter().filter(|row| self.is_new(row));
        let rows = rows.map(|row| Arc::new(SharedRow::new(row))).collect();
        self.advance(last.unwrap_or_default(), settled);
        if is_complete {
            let horizon = read.bounds.horizon;
            self.bound = Position::before_transaction(horizon);
            self.skipped.take_if(|skipped| skipped.is_below(horizon));
            if self.membership.is_none() {
                // A position may be above the horizon. The tail has to read what comes below it.
                self.join(self.cursor.min(self.bound.max(floor)));
            } else if !self.is_live() {
                // The database is another server, which lacks rows of the group. The tail has yet to see that.
                self.membership = None;
                self.retry_at = Some(Instant::now() + jittered(REJOIN_PAUSE));
            }
        }
        Ok(rows)
    }

    fn next_page(&self) -> AbortOnDropHandle<Result<Read>> {
        let database = self.database.clone();
        let query = ReadPage {
            following: self.following.clone(),
            after: self.cursor,
        };
        let read = async move { database.run(&query).await };
        AbortOnDropHandle::new(tokio::spawn(read.in_current_span()))
    }

    /// Notes the end of the rows of the group.
    fn reach(&mut self, end: &End) {
        self.advance(end.through, Some(end.settled));
        self.skipped
            .take_if(|skipped| skipped.is_below(end.horizon));
    }

    /// Returns whether a row was not passed on yet, and is to be.
    fn is_new(&self, row: &Transition) -> bool {
        let is_skipped = |skipped: &Committed| skipped.includes(row.xid.0);
        row.journal_position() > self.cursor && !self.skipped.as_ref().is_some_and(is_skipped)
    }

    fn advance(&mut self, through: Position, settled: Option<Position>) {
        // A bound is no position to go on after.
        let row = |position: Position| {
            position
                .row_id()
                .map_or_else(Position::default, |_| position)
        };
        self.cursor = self.cursor.max(row(through));
        self.settled = self.settled.max(row(settled.unwrap_or_default()));
    }

    fn join(&mut self, through: Position) {
        let scope = Scope::of(&self.following.namespace);
        let branch = self.database.feed().branch(&scope);
        self.membership = Some(branch.join(&scope, &self.following.wanted, through));
    }
}

/// Returns the error for a position after which rows are gone.
#[must_use]
pub fn gone(namespace: &Namespace, floor: Position) -> Error {
    Error::Watch(WatchEnd::Gone {
        oldest_position: floor.to_text(namespace.as_str()),
    })
}
