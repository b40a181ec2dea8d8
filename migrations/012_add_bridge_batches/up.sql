-- Existing bridges are at their first revision.
ALTER TABLE bridge_states
    ADD COLUMN revision BIGINT NOT NULL DEFAULT 1
        CONSTRAINT bridge_states_revision_check CHECK (revision > 0),
    ADD COLUMN request_digest BYTEA;
ALTER TABLE bridge_states ALTER COLUMN revision DROP DEFAULT;

-- The filters and the order of ListBridgeStates: those that aggregated last come
-- first, and a bridge that never has counts by its creation.
CREATE INDEX idx_bridge_states_namespace_last_activity
    ON bridge_states (namespace, (coalesce(last_aggregation_timestamp, created_at)) DESC, bridge_id DESC);
CREATE INDEX idx_bridge_states_agg_metadata_gin
    ON bridge_states USING GIN (aggregation_metadata);

COMMENT ON COLUMN bridge_states.revision IS 'Counts the changes of the row, from 1.';
COMMENT ON COLUMN bridge_states.request_digest IS 'Digest of the request that made this revision; a retry has the same.';

-- Which changes each bridge has seen, so that none is made twice.
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

COMMENT ON TABLE bridge_batches IS 'Which changes were applied: batches that were added, and totals that were set; gone with their bridge.';
COMMENT ON COLUMN bridge_batches.namespace IS 'The tenant that the bridge belongs to.';
COMMENT ON COLUMN bridge_batches.bridge_id IS 'The bridge that the batch was added to.';
COMMENT ON COLUMN bridge_batches.batch_id IS 'The caller''s own name for the batch; where totals were set, an id that the server made for that.';
COMMENT ON COLUMN bridge_batches.workflows_processed IS 'What it added to total_workflows_processed; 0 where totals were set.';
COMMENT ON COLUMN bridge_batches.items_aggregated IS 'What it added to total_items_aggregated; 0 where totals were set.';
COMMENT ON COLUMN bridge_batches.request_digest IS 'Digest of the request; a retry has the same.';
COMMENT ON COLUMN bridge_batches.created_at IS 'When the row was inserted.';
