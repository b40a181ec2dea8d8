-- For how long rows are kept, where an operator says otherwise than the settings.
CREATE TABLE retention_policies (
    namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(100) NOT NULL
        CONSTRAINT retention_policies_table_name_check CHECK (table_name IN
            ('workflow_executions', 'fsm_transitions', 'bridge_batches', 'metadata_stamps')),
    max_age_seconds BIGINT
        CONSTRAINT retention_policies_max_age_seconds_check CHECK (max_age_seconds > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT retention_policies_pkey PRIMARY KEY (namespace, table_name)
);

COMMENT ON TABLE retention_policies IS 'For how long the rows of a tenant are kept, where that is not what the settings say.';
COMMENT ON COLUMN retention_policies.namespace IS 'The tenant.';
COMMENT ON COLUMN retention_policies.table_name IS 'The table.';
COMMENT ON COLUMN retention_policies.max_age_seconds IS 'How old rows get; NULL for any age.';
COMMENT ON COLUMN retention_policies.created_at IS 'When the row was inserted.';
COMMENT ON COLUMN retention_policies.updated_at IS 'When the row was last changed.';

-- The order in which rows get old, for each tenant; fsm_transitions and
-- metadata_stamps have theirs.
CREATE INDEX idx_workflow_executions_namespace_completed_at
    ON workflow_executions (namespace, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX idx_bridge_batches_namespace_created_at
    ON bridge_batches (namespace, created_at);
