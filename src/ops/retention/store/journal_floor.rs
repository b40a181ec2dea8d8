//! The floor of the journal: the last row of a namespace, in the order of positions, that retention has
//! removed. A reader that has not come as far has missed rows.
//!
//! Rows are removed by time and entity type, so rows before the floor may remain.
//!
//! Two replicas that prune a namespace wait for each other at its floor, and cannot deadlock: a
//! statement takes the floor last, after all rows that it deletes, and skips rows that are locked.

/// What the delete of rows of the journal, as `it`, returns for [`MOVE`].
pub(super) const RETURNING: &str = "it.xid, it.seq, it.id";

/// Moves the floor of the namespace `$1` to the last row of `deleted`, and never back. Rows that the
/// database keeps are not among them.
pub(super) const MOVE: &str = ", floor AS (
        INSERT INTO journal_floors AS f (namespace, xid, seq, transition_id)
        SELECT $1, xid, seq, id FROM deleted ORDER BY xid DESC, seq DESC LIMIT 1
            ON CONFLICT ON CONSTRAINT journal_floors_pkey DO UPDATE
           SET xid = excluded.xid, seq = excluded.seq, transition_id = excluded.transition_id,
               updated_at = now()
         WHERE (f.xid, f.seq) < (excluded.xid, excluded.seq)
     )";
