-- Where a row stands in the journal, in an order that a reader can follow
-- without ever missing a row that commits late: read in the order (xid, seq),
-- and only rows with xid < pg_snapshot_xmin(pg_current_snapshot()). Transactions
-- below that mark have all ended, so nothing can appear before it any more.
-- seq alone will not do: it is given out before the commit, so 7 may become
-- visible after 8.
ALTER TABLE fsm_transitions
    ADD COLUMN seq BIGINT GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN xid XID8 NOT NULL DEFAULT pg_current_xact_id();

COMMENT ON COLUMN fsm_transitions.seq IS 'Orders the rows of one transaction; ascending, with gaps.';
COMMENT ON COLUMN fsm_transitions.xid IS 'The transaction that wrote the row; (xid, seq) is its position in the journal.';
