ALTER TABLE bridge_states
    DROP COLUMN consumed_transition_id,
    DROP COLUMN consumed_seq,
    DROP COLUMN consumed_xid;
DROP TABLE journal_floors;
ALTER TABLE journal_cluster DROP COLUMN xid_offset;
