CREATE TABLE bridge_states (
    bridge_id UUID CONSTRAINT bridge_states_pkey PRIMARY KEY,
    namespace VARCHAR(255) NOT NULL,
    total_workflows_processed BIGINT NOT NULL DEFAULT 0
        CONSTRAINT bridge_states_total_workflows_processed_check CHECK (total_workflows_processed >= 0),
    total_items_aggregated BIGINT NOT NULL DEFAULT 0
        CONSTRAINT bridge_states_total_items_aggregated_check CHECK (total_items_aggregated >= 0),
    aggregation_metadata JSONB NOT NULL DEFAULT '{}',
    current_fsm_state VARCHAR(50) NOT NULL,
    last_aggregation_timestamp TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_bridge_states_namespace ON bridge_states (namespace);
CREATE INDEX idx_bridge_states_current_fsm_state ON bridge_states (current_fsm_state);
CREATE INDEX idx_bridge_states_last_aggregation_timestamp ON bridge_states (last_aggregation_timestamp DESC);
CREATE INDEX idx_bridge_states_namespace_current_fsm_state ON bridge_states (namespace, current_fsm_state);

COMMENT ON TABLE bridge_states IS 'Bridges: the running totals of each reducer.';
COMMENT ON COLUMN bridge_states.bridge_id IS 'Primary key. Id of the bridge, chosen by the reducer.';
COMMENT ON COLUMN bridge_states.namespace IS 'Tenant that owns the bridge.';
COMMENT ON COLUMN bridge_states.total_workflows_processed IS 'Number of workflows processed.';
COMMENT ON COLUMN bridge_states.total_items_aggregated IS 'Number of items aggregated.';
COMMENT ON COLUMN bridge_states.aggregation_metadata IS 'JSON object that the reducer keeps with its totals.';
COMMENT ON COLUMN bridge_states.current_fsm_state IS 'Current state in the state machine of the bridge.';
COMMENT ON COLUMN bridge_states.last_aggregation_timestamp IS 'Time of the last aggregation. NULL before the first one.';
COMMENT ON COLUMN bridge_states.created_at IS 'Time of the insert.';
COMMENT ON COLUMN bridge_states.updated_at IS 'Time of the last update of the row.';
