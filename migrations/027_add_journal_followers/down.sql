ALTER TABLE bridge_states
    DROP COLUMN consumed_transition_id,
    DROP COLUMN consumed_seq,
    DROP COLUMN consumed_xid;
DROP TABLE journal_floors;
-- The default of fsm_transitions.xid keeps the offset, so that new rows still come last. `migrate up`
-- records it again.
ALTER TABLE journal_cluster DROP COLUMN xid_offset;
COMMENT ON COLUMN journal_cluster.is_adopted IS 'Whether all rows of the journal have positions of this cluster. False while they are repaired.';
COMMENT ON COLUMN fsm_transitions.xid IS 'Transaction that wrote the row. (xid, seq) is the position of the row in the journal.';
