-- Records the cluster that assigned the transaction ids of the journal. A dump takes the
-- row along, so after a restore into another cluster the row tells that the ids of the
-- journal mean nothing there: new transactions may get lower ones. Versions before migration
-- 027 then set fsm_transitions.xid to 0 in all rows before they served.
CREATE TABLE journal_cluster (
    is_only_row BOOLEAN DEFAULT TRUE
        CONSTRAINT journal_cluster_pkey PRIMARY KEY
        CONSTRAINT journal_cluster_is_only_row_check CHECK (is_only_row),
    system_identifier BIGINT NOT NULL,
    is_adopted BOOLEAN NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

COMMENT ON TABLE journal_cluster IS 'The database cluster that the positions of the journal belong to; one row, or none before the first start.';
COMMENT ON COLUMN journal_cluster.is_only_row IS 'Primary key. Always true, so that there is one row.';
COMMENT ON COLUMN journal_cluster.system_identifier IS 'Identifier of the cluster, from pg_control_system(). 0 if the service may not read it.';
COMMENT ON COLUMN journal_cluster.is_adopted IS 'Whether all rows of the journal have positions of this cluster. False while they are repaired.';
COMMENT ON COLUMN journal_cluster.updated_at IS 'Time of the last update of the row.';
