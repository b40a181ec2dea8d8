-- Lock: ACCESS EXCLUSIVE on journal_cluster: reads all rows
-- Lock: ACCESS EXCLUSIVE on bridge_states: reads no rows
-- Lock: SHARE UPDATE EXCLUSIVE on fsm_transitions: reads no rows

-- The position of a row in the journal is (xid, seq). It names the row itself, too, so that a
-- reader notices if the row was lost: by a restore, or by a failover to a standby that lacked it.

-- A restored journal keeps its positions. New rows get higher ones, because the default of
-- fsm_transitions.xid then adds this number to the transaction id. The service sets both. A reader
-- reads rows with xid < pg_snapshot_xmin(pg_current_snapshot()) + xid_offset.
ALTER TABLE journal_cluster
    ADD COLUMN xid_offset BIGINT NOT NULL DEFAULT 0
        CONSTRAINT journal_cluster_xid_offset_check CHECK (xid_offset >= 0);

COMMENT ON COLUMN journal_cluster.xid_offset IS 'Added to the transaction id of a new row of the journal. Not 0 if the journal comes from another cluster.';
COMMENT ON COLUMN journal_cluster.is_adopted IS 'Whether new rows of the journal get positions after all others. False only if a version before migration 027 was interrupted while it changed the positions.';
COMMENT ON COLUMN fsm_transitions.xid IS 'Transaction that wrote the row, plus the xid_offset of journal_cluster at that time. (xid, seq) is the position of the row in the journal.';

-- The last row of each namespace that retention removed, in the order of positions. A reader that
-- has not come as far has missed rows. Rows before it may remain, because retention goes by time
-- and entity type.
CREATE TABLE journal_floors (
    namespace VARCHAR(255) CONSTRAINT journal_floors_pkey PRIMARY KEY,
    xid XID8 NOT NULL,
    seq BIGINT NOT NULL,
    transition_id UUID NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

COMMENT ON TABLE journal_floors IS 'The last removed row of the journal of each namespace.';
COMMENT ON COLUMN journal_floors.namespace IS 'Primary key. Tenant that owned the row.';
COMMENT ON COLUMN journal_floors.xid IS 'The xid of the row.';
COMMENT ON COLUMN journal_floors.seq IS 'The seq of the row.';
COMMENT ON COLUMN journal_floors.transition_id IS 'The id of the row.';
COMMENT ON COLUMN journal_floors.updated_at IS 'Time of the last update of the row.';

-- How far a bridge has consumed the journal of its namespace. All NULL, or none.
ALTER TABLE bridge_states
    ADD COLUMN consumed_xid XID8,
    ADD COLUMN consumed_seq BIGINT,
    ADD COLUMN consumed_transition_id UUID;

COMMENT ON COLUMN bridge_states.consumed_xid IS 'The xid of the last row of the journal that the bridge has consumed. NULL if it consumes none.';
COMMENT ON COLUMN bridge_states.consumed_seq IS 'The seq of that row.';
COMMENT ON COLUMN bridge_states.consumed_transition_id IS 'The id of that row. It may have been removed since.';
