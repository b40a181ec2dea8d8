-- Lock: ACCESS EXCLUSIVE on bridge_states: builds 2 indexes

-- Existing bridges get revision 1. The default is dropped so that new rows must name
-- their revision.
ALTER TABLE bridge_states
    ADD COLUMN revision BIGINT NOT NULL DEFAULT 1
        CONSTRAINT bridge_states_revision_check CHECK (revision > 0),
    ADD COLUMN request_digest BYTEA;
ALTER TABLE bridge_states ALTER COLUMN revision DROP DEFAULT;

-- Support the filters and the sort order of ListBridgeStates: latest aggregation first.
-- A bridge without an aggregation is sorted by its creation time.
CREATE INDEX idx_bridge_states_namespace_last_activity
    ON bridge_states (namespace, (coalesce(last_aggregation_timestamp, created_at)) DESC, bridge_id DESC);
CREATE INDEX idx_bridge_states_agg_metadata_gin
    ON bridge_states USING GIN (aggregation_metadata);

COMMENT ON COLUMN bridge_states.revision IS 'Number of changes of the row, starting at 1.';
COMMENT ON COLUMN bridge_states.request_digest IS 'Digest of the request that made this revision. A retry has the same digest.';

-- Records the changes applied to each bridge, so that a retry is not applied twice.
CREATE TABLE bridge_batches (
    namespace VARCHAR(255) NOT NULL,
    bridge_id UUID NOT NULL,
    batch_id UUID NOT NULL,
    workflows_processed BIGINT NOT NULL
        CONSTRAINT bridge_batches_workflows_processed_check CHECK (workflows_processed >= 0),
    items_aggregated BIGINT NOT NULL
        CONSTRAINT bridge_batches_items_aggregated_check CHECK (items_aggregated >= 0),
    request_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT bridge_batches_pkey PRIMARY KEY (namespace, bridge_id, batch_id)
);

COMMENT ON TABLE bridge_batches IS 'Changes applied to bridges: accumulated batches and overwritten totals. Deleted with their bridge.';
COMMENT ON COLUMN bridge_batches.namespace IS 'Tenant that owns the bridge.';
COMMENT ON COLUMN bridge_batches.bridge_id IS 'Bridge that the change was applied to.';
COMMENT ON COLUMN bridge_batches.batch_id IS 'The caller''s id of the batch. If totals were overwritten, an id that the server generated.';
COMMENT ON COLUMN bridge_batches.workflows_processed IS 'Amount added to total_workflows_processed. 0 if totals were overwritten.';
COMMENT ON COLUMN bridge_batches.items_aggregated IS 'Amount added to total_items_aggregated. 0 if totals were overwritten.';
COMMENT ON COLUMN bridge_batches.request_digest IS 'Digest of the request. A retry has the same digest.';
COMMENT ON COLUMN bridge_batches.created_at IS 'Time of the insert.';
