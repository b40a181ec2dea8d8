-- Lock: ACCESS EXCLUSIVE on fsm_transitions: rewrites all rows

-- Adds the position of a row in the journal: (xid, seq). A reader that follows this
-- order misses no row, even one that commits late, if it reads only rows with
-- xid < pg_snapshot_xmin(pg_current_snapshot()). All transactions below that xid have
-- ended, so no row can appear below it later.
-- seq alone is not enough. It is assigned before the commit, so 7 may become visible
-- after 8.
ALTER TABLE fsm_transitions
    ADD COLUMN seq BIGINT GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN xid XID8 NOT NULL DEFAULT pg_current_xact_id();

COMMENT ON COLUMN fsm_transitions.seq IS 'Orders the rows of one transaction. Ascending, with gaps.';
COMMENT ON COLUMN fsm_transitions.xid IS 'Transaction that wrote the row. (xid, seq) is the position of the row in the journal.';
