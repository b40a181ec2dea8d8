//! Reads the journal of namespaces after positions.

use std::pin::pin;

use diesel::{
    QueryResult,
    result::Error as DieselError,
    sql_types::{self, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{Stream, TryStreamExt};
use uuid::Uuid;

use super::scope::TransitionMatch;
use crate::{
    db::{
        batch::statement::{batch_statement, index_of},
        journal::{Transition, TransitionSql, Xid, transition_columns},
        planner::{byte_order, lateral, left_lateral, left_lookup, same_namespace},
        schema::sql_types::Xid8,
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
    /// No transaction from this one on had begun to write. A row that was committed before the
    /// statement has a lower xid.
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
    /// The rows of each cursor, in the order of the cursors.
    pub scopes: Vec<ScopeRows>,
    /// Whether rows are left on the connection.
    pub is_cut: bool,
}

/// The snapshot of a statement, and the horizon in it: all transactions with a lower number have ended,
/// so no row can appear below it later. Both numbers count as the column `xid` does.
macro_rules! snapshot_bounds {
    () => {
        "now AS MATERIALIZED (
            SELECT pg_current_snapshot() AS snapshot,
                   coalesce((SELECT xid_offset FROM journal_cluster), 0) AS xid_offset
         ), bounds AS MATERIALIZED (
            SELECT (pg_snapshot_xmin(snapshot)::text::bigint + xid_offset)::text::xid8 AS horizon,
                   (pg_snapshot_xmax(snapshot)::text::bigint + xid_offset)::text::xid8 AS xmax
              FROM now
         )"
    };
}

pub(crate) use snapshot_bounds;

/// The condition for rows `j` that the reader of the item wants.
macro_rules! is_wanted {
    () => {
        "(item.entity_type IS NULL OR j.entity_type = item.entity_type)
         AND (wanted.entity_ids IS NULL OR j.entity_id = ANY (wanted.entity_ids))
         AND (item.transition_event IS NULL OR j.transition_event = item.transition_event)
         AND (item.to_state IS NULL OR j.to_state = item.to_state)"
    };
}

/// Of rows `r` in the order of the journal, those that match, up to the limit of bytes, and the last one.
/// That comes without its document if it does not match.
macro_rules! matches_and_last {
    ($($rows:expr),+ $(,)?) => {
        concat!("SELECT * FROM (
            SELECT s.*, lead(s.seq) OVER journal IS NULL AS is_last, row_number() OVER journal AS number,
                   sum(s.bytes) OVER journal AS bytes_through
              FROM (
                SELECT r.id, r.entity_id, r.entity_type, r.from_state, r.to_state, r.transition_event,
                       r.created_at, r.namespace, r.request_digest, r.token_id, r.xid, r.seq, r.is_match,
                       CASE WHEN r.is_match THEN r.transition_data ELSE '{}' END AS transition_data,
                       CASE WHEN r.is_match THEN 200 + pg_column_size(r.transition_data) ELSE 0 END AS bytes
                  FROM (", $($rows),+, ") r
              ) s
            WINDOW journal AS (ORDER BY s.xid, s.seq ROWS UNBOUNDED PRECEDING)) t
          WHERE t.bytes_through - t.bytes < item.stored_bytes
            AND (t.is_match OR t.is_last OR t.bytes_through >= item.stored_bytes)")
    };
}

/// The condition for the row `there` that the cursor of the item names.
macro_rules! is_row_of_cursor {
    () => {
        "there.id = item.transition_id AND there.xid = item.xid::text::xid8 AND there.seq = item.seq"
    };
}

macro_rules! read_statement {
    ($(#[$doc:meta])* $name:ident, $($lookups_and_rows:expr),+ $(,)?) => {
        batch_statement! {
            $(#[$doc])*
            struct $name<'a> {
                namespace: &'a str => Text,
                xid: i64 => BigInt,
                seq: i64 => BigInt,
                transition_id: Option<TransitionId> => Nullable<sql_types::Uuid>,
                rows: i64 => BigInt,
                stored_bytes: i64 => BigInt,
                entity_type: Option<&'a str> => Nullable<Text>,
                entity_ids: Option<&'a str> => Nullable<Text>,
                transition_event: Option<&'a str> => Nullable<Text>,
                to_state: Option<&'a str> => Nullable<Text>,
            }
            returns (
                Xid8,
                Xid8,
                BigInt,
                Nullable<(Xid8, BigInt, sql_types::Uuid)>,
                Bool,
                Nullable<(Bool, Bool)>,
                Nullable<TransitionSql>,
            );
            concat!(", ", snapshot_bounds!(), "
                SELECT bounds.horizon, bounds.xmax, item.ordinality, floor.xid, floor.seq,
                       floor.transition_id, there.id IS NOT NULL, t.is_match,
                       t.is_last AND t.number < item.rows, ", transition_columns!(), "
                  FROM bounds CROSS JOIN item",
                  lateral!("wanted", "SELECT item.entity_ids::uuid[] AS entity_ids OFFSET 0"),
                  $($lookups_and_rows),+)
        }

        impl<'a> $name<'a> {
            fn new(cursors: &'a [Cursor], wanted: &'a TransitionMatch, limit: ReadLimit) -> Self {
                let each = cursors.iter();
                $name {
                    namespace: each.clone().map(|it| &*it.namespace).collect(),
                    xid: each.clone().map(|it| it.after.xid_for_sql()).collect(),
                    seq: each.clone().map(|it| it.after.seq).collect(),
                    transition_id: each.clone().map(|it| it.after.row_id()).collect(),
                    rows: each.clone().map(|_| limit.rows).collect(),
                    stored_bytes: each.clone().map(|_| limit.stored_bytes).collect(),
                    entity_type: each.clone().map(|_| wanted.entity_type.as_deref()).collect(),
                    entity_ids: each.clone().map(|it| it.entity_ids.as_deref()).collect(),
                    transition_event: each
                        .clone()
                        .map(|_| wanted.transition_event.as_deref())
                        .collect(),
                    to_state: each.map(|_| wanted.to_state.as_deref()).collect(),
                }
            }
        }
    };
}

read_statement! {
    /// Reads the rows of each namespace after its position and below the horizon, in one snapshot with
    /// the horizon. With two snapshots, a row that commits between them could be missed.
    ReadNamespaces,
    left_lookup!("journal_floors", "floor", "floor.namespace = item.namespace"),
    left_lookup!("fsm_transitions", "there", is_row_of_cursor!(), " AND ", same_namespace!("there")),
    left_lateral!("t", matches_and_last!(
        "SELECT j.*, ", is_wanted!(), " AS is_match
           FROM fsm_transitions j
          WHERE ", byte_order!("j.namespace"), " = item.namespace
            AND (j.xid, j.seq) > (item.xid::text::xid8, item.seq) AND j.xid < bounds.horizon
          ORDER BY j.xid, j.seq LIMIT item.rows"))
}

read_statement! {
    /// Reads the rows of all namespaces of tenants with a prefix in the same way, in their common order:
    /// first where they are, then the first ones of all.
    ReadPrefix,
    left_lateral!("floor",
        "SELECT f.* FROM journal_floors f
          WHERE starts_with(f.namespace, item.namespace) AND NOT starts_with(f.namespace, 'bridgebook.')
          ORDER BY f.xid DESC, f.seq DESC LIMIT 1"),
    left_lookup!("fsm_transitions", "there", is_row_of_cursor!(), "
                 AND starts_with(there.namespace, item.namespace)"),
    left_lateral!("t", matches_and_last!(
        "SELECT j.*, ", is_wanted!(), " AS is_match
           FROM (
            WITH RECURSIVE found AS (
                (SELECT j.namespace FROM fsm_transitions j
                  WHERE j.namespace COLLATE \"C\" >= item.namespace
                  ORDER BY j.namespace COLLATE \"C\" LIMIT 1)
                UNION ALL
                SELECT (SELECT j.namespace FROM fsm_transitions j
                         WHERE j.namespace COLLATE \"C\" > found.namespace
                         ORDER BY j.namespace COLLATE \"C\" LIMIT 1)
                  FROM found WHERE starts_with(found.namespace, item.namespace)
            )
            SELECT found.namespace, k.xid, k.seq
              FROM found", lateral!("k",
                "SELECT j.xid, j.seq FROM fsm_transitions j
                  WHERE ", byte_order!("j.namespace"), " = found.namespace
                    AND (j.xid, j.seq) > (item.xid::text::xid8, item.seq) AND j.xid < bounds.horizon
                  ORDER BY j.xid, j.seq LIMIT item.rows"), "
             WHERE starts_with(found.namespace, item.namespace)
               AND NOT starts_with(found.namespace, 'bridgebook.')
             ORDER BY k.xid, k.seq LIMIT item.rows
           ) place", lateral!("j",
            "SELECT * FROM fsm_transitions j
              WHERE ", byte_order!("j.namespace"), " = place.namespace
                AND j.xid = place.xid AND j.seq = place.seq LIMIT 1"), "
          ORDER BY place.xid, place.seq"))
}

type Row = (
    Xid,
    Xid,
    i64,
    Option<(Xid, i64, TransitionId)>,
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
    while let Some((horizon, xmax, ordinality, floor, is_there, place, row)) =
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
            break;
        }
    }
    Ok(read)
}

impl ScopeRows {
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
