//! Reads the journal of namespaces after positions.

mod statements;

use std::pin::pin;

use diesel::{QueryResult, result::Error as DieselError};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{Stream, TryStreamExt};
use uuid::Uuid;

pub(crate) use self::statements::snapshot_bounds;
use self::statements::{ReadNamespaces, ReadPrefix};
use super::scope::TransitionMatch;
use crate::{
    db::{
        batch::statement::index_of,
        journal::{Transition, Xid},
    },
    domain::{id::TransitionId, page::PageRow, position::Position},
};

/// How much one statement reads.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// How many rows of each cursor it passes over at most.
    rows: i64,
    /// Size of the rows of each cursor that match, in bytes, as the table has them. It stops after the
    /// row that exceeds it.
    stored_bytes: i64,
    /// Size in memory of all rows that match, in bytes. Documents may be compressed in the table. Most
    /// are not, so that most reads end before this limit.
    memory: usize,
}

/// The limit of the tail. More rows than a commit of the service writes, so that it is mostly read at
/// once.
pub const TAIL: ReadLimit = ReadLimit {
    rows: 2000,
    stored_bytes: 1024 * 1024,
    memory: 16 * 1024 * 1024,
};

/// The limit of a reader. Its rows become one message, which is in memory until the client has taken it.
pub const PAGE: ReadLimit = ReadLimit {
    rows: 2000,
    stored_bytes: 512 * 1024,
    memory: 1024 * 1024,
};

/// A namespace, or the prefix of several, and how far the journal was read.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The namespace.
    pub namespace: String,
    /// The last row that was read, or a bound above it.
    pub after: Position,
    /// The entities whose transitions are wanted, as PostgreSQL writes an array; `None` for all.
    pub entity_ids: Option<String>,
}

/// Returns ids as PostgreSQL writes an array of them.
pub fn id_array(ids: &[Uuid]) -> String {
    let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
    format!("{{{}}}", ids.join(","))
}

/// The bounds of the snapshot that a statement read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// All transactions below this one have ended.
    pub horizon: u64,
    /// No transaction from this one on had begun to write.
    pub xmax: u64,
}

/// The rows of one scope after its cursor.
#[derive(Debug, Default)]
pub struct ScopeRows {
    /// The rows that match, in their order.
    pub rows: Vec<Transition>,
    /// The last row that was passed over, whether it matches or not; `None` if there is no later row.
    pub last: Option<Position>,
    /// Whether all rows below the horizon were passed over.
    pub is_complete: bool,
    /// Whether rows are committed that are not below the horizon.
    pub has_above: bool,
    /// The last row that retention has removed.
    pub floor: Position,
    /// Whether rows after the cursor are gone: retention has removed some, or the row of the cursor is
    /// lost.
    pub has_gap: bool,
}

/// The journal after some cursors.
#[derive(Debug)]
pub struct Read {
    /// The bounds of the snapshot.
    pub bounds: Bounds,
    /// The rows of each cursor, in the order of the cursors. Those of the last ones are missing if the
    /// limit of memory was reached before.
    pub scopes: Vec<ScopeRows>,
    /// Whether rows are left on the connection.
    pub is_cut: bool,
}

type Row = (
    Xid,
    Xid,
    i64,
    Option<(Xid, i64, TransitionId)>,
    bool,
    bool,
    Option<(bool, bool)>,
    Option<Transition>,
);

/// Reads the rows after each cursor that match `wanted`, up to the limit.
pub async fn read_namespaces(
    connection: &mut AsyncPgConnection,
    cursors: &[Cursor],
    wanted: &TransitionMatch,
    limit: ReadLimit,
) -> QueryResult<Read> {
    let statement = ReadNamespaces::new(cursors, wanted, limit);
    let stream = statement.load_stream(connection).await?;
    collect(stream, cursors, limit).await
}

/// Reads the rows after the cursor of a prefix, as [`read_namespaces`] does.
pub async fn read_prefix(
    connection: &mut AsyncPgConnection,
    cursor: Cursor,
    wanted: &TransitionMatch,
    limit: ReadLimit,
) -> QueryResult<Read> {
    let cursors = [cursor];
    let statement = ReadPrefix::new(&cursors, wanted, limit);
    let stream = statement.load_stream(connection).await?;
    collect(stream, &cursors, limit).await
}

/// Collects rows, up to the limit of memory.
async fn collect(
    stream: impl Stream<Item = QueryResult<Row>>,
    cursors: &[Cursor],
    limit: ReadLimit,
) -> QueryResult<Read> {
    let mut read = Read {
        bounds: Bounds::default(),
        scopes: cursors.iter().map(|_| ScopeRows::default()).collect(),
        is_cut: false,
    };
    let mut stream = pin!(stream);
    let mut memory = 0;
    while let Some((horizon, xmax, ordinality, floor, is_there, has_above, place, row)) =
        stream.try_next().await?
    {
        read.bounds = Bounds {
            horizon: horizon.0,
            xmax: xmax.0,
        };
        let index = index_of(ordinality);
        let Some((scope, cursor)) = read.scopes.get_mut(index).zip(cursors.get(index)) else {
            continue;
        };
        scope.floor = floor.map_or_else(Position::default, |(xid, seq, transition_id)| Position {
            xid: xid.0,
            seq,
            transition_id,
        });
        let after = cursor.after;
        let is_known = is_there || after.row_id().is_none() || after == scope.floor;
        scope.has_gap = scope.floor > after || !is_known;
        scope.has_above = has_above;
        let Some((row, (is_match, is_complete))) = row.zip(place) else {
            scope.is_complete = true;
            continue;
        };
        let position = row.journal_position();
        if scope.last.unwrap_or(cursor.after) >= position {
            return Err(DieselError::DeserializationError(
                "the rows of the journal are not in their order".into(),
            ));
        }
        scope.last = Some(position);
        scope.is_complete = is_complete;
        if is_match {
            memory += row.size();
            scope.rows.push(row);
        }
        if memory > limit.memory {
            read.is_cut = true;
            read.scopes.truncate(index + 1);
            break;
        }
    }
    Ok(read)
}

impl ScopeRows {
    /// Leaves the rows of the last commit to the next read, if this one may have split it, and has rows of
    /// others.
    pub fn drop_split(&mut self, before: Position) {
        let (Some(last), Some(settled)) = (self.last, self.settled(before)) else {
            return;
        };
        let is_split = self.rows.last().is_some_and(|row| row.xid.0 == last.xid);
        if !self.is_complete && is_split && settled > before {
            self.rows.retain(|row| row.journal_position() <= settled);
            self.last = Some(settled);
        }
    }

    /// Returns the last position after `before`, up to which the rows were read, that is not between
    /// two rows of a commit. `None` if there is none.
    #[must_use]
    pub fn settled(&self, before: Position) -> Option<Position> {
        if self.is_complete {
            return Some(self.last.unwrap_or(before));
        }
        let last = self.last?;
        let rows = self.rows.iter().map(Transition::journal_position);
        let whole = rows.filter(|it| it.xid < last.xid).last();
        whole.or(Some(before).filter(|it| it.xid < last.xid))
    }
}
