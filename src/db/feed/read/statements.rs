//! The SQL that reads the journal after positions.

use diesel::sql_types::{BigInt, Bool, Nullable, Text, Uuid};

use super::{Cursor, ReadLimit};
use crate::{
    db::{
        batch::statement::batch_statement,
        feed::scope::{TransitionMatch, walk_namespaces},
        journal::{TransitionSql, transition_columns},
        planner::{byte_order, lateral, left_lateral, left_lookup, same_namespace},
        schema::sql_types::Xid8,
    },
    domain::id::TransitionId,
};

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
                transition_id: Option<TransitionId> => Nullable<Uuid>,
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
                Nullable<(Xid8, BigInt, Uuid)>,
                Bool,
                Bool,
                Nullable<(Bool, Bool)>,
                Nullable<TransitionSql>,
            );
            concat!(", ", snapshot_bounds!(), "
                SELECT bounds.horizon, bounds.xmax, item.ordinality, floor.xid, floor.seq,
                       floor.transition_id, there.id IS NOT NULL, above.id IS NOT NULL, t.is_match,
                       t.is_last AND t.number < item.rows, ", transition_columns!(), "
                  FROM bounds CROSS JOIN item",
                  lateral!("wanted", "SELECT item.entity_ids::uuid[] AS entity_ids OFFSET 0"),
                  $($lookups_and_rows),+)
        }

        impl<'a> $name<'a> {
            pub(super) fn new(cursors: &'a [Cursor], wanted: &'a TransitionMatch, limit: ReadLimit) -> Self {
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
    left_lookup!("fsm_transitions", "above",
        byte_order!("above.namespace"), " = item.namespace AND above.xid >= bounds.horizon"),
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
    left_lateral!("above",
        walk_namespaces!("item.namespace"), "
         SELECT j.id FROM found", lateral!("j",
            "SELECT * FROM fsm_transitions j
              WHERE ", byte_order!("j.namespace"), " = found.namespace AND j.xid >= bounds.horizon
              LIMIT 1"), "
          WHERE starts_with(found.namespace, item.namespace)
            AND NOT starts_with(found.namespace, 'bridgebook.') LIMIT 1"),
    left_lateral!("t", matches_and_last!(
        "SELECT j.*, ", is_wanted!(), " AS is_match
           FROM (
            ", walk_namespaces!("item.namespace"), "
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
