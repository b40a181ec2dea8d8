-- Lock: SHARE UPDATE EXCLUSIVE on workflow_executions: builds 1 index
-- Lock: SHARE UPDATE EXCLUSIVE on bridge_batches: builds 1 index

-- Retention set by an operator; it overrides the settings.
CREATE TABLE IF NOT EXISTS retention_policies (
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

COMMENT ON TABLE retention_policies IS 'Retention per tenant and table, overriding the default in the settings.';
COMMENT ON COLUMN retention_policies.namespace IS 'Tenant that the policy applies to.';
COMMENT ON COLUMN retention_policies.table_name IS 'Table that the policy applies to.';
COMMENT ON COLUMN retention_policies.max_age_seconds IS 'Age in seconds at which rows are pruned. NULL: rows are never pruned.';
COMMENT ON COLUMN retention_policies.created_at IS 'Time of the insert.';
COMMENT ON COLUMN retention_policies.updated_at IS 'Time of the last update of the row.';

-- Let pruning find the expired rows of a tenant. fsm_transitions and metadata_stamps
-- already have such an index.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_executions_namespace_completed_at
    ON workflow_executions (namespace, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_bridge_batches_namespace_created_at
    ON bridge_batches (namespace, created_at);
