CREATE TABLE workflow_executions (
    id UUID CONSTRAINT workflow_executions_pkey PRIMARY KEY,
    correlation_id UUID NOT NULL CONSTRAINT workflow_executions_correlation_id_key UNIQUE,
    workflow_type VARCHAR(100) NOT NULL,
    current_state VARCHAR(50) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    completed_at TIMESTAMPTZ,
    execution_time_ms BIGINT
        CONSTRAINT workflow_executions_execution_time_ms_check CHECK (execution_time_ms >= 0),
    error_message TEXT,
    metadata JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- No index on correlation_id: its unique constraint already creates one.
CREATE INDEX idx_workflow_executions_namespace ON workflow_executions (namespace);
CREATE INDEX idx_workflow_executions_current_state ON workflow_executions (current_state);
CREATE INDEX idx_workflow_executions_started_at ON workflow_executions (started_at DESC);

COMMENT ON TABLE workflow_executions IS 'Workflows: one row per run.';
COMMENT ON COLUMN workflow_executions.id IS 'Primary key. A UUIDv7 if the server generated it.';
COMMENT ON COLUMN workflow_executions.correlation_id IS 'The caller''s id of the run. Idempotency key of StartWorkflow.';
COMMENT ON COLUMN workflow_executions.workflow_type IS 'Kind of workflow, named by the caller.';
COMMENT ON COLUMN workflow_executions.current_state IS 'PENDING, PROCESSING, COMPLETED, FAILED or CANCELLED.';
COMMENT ON COLUMN workflow_executions.namespace IS 'Tenant that owns the workflow.';
COMMENT ON COLUMN workflow_executions.started_at IS 'Start time, given by the caller. Defaults to the time of the insert.';
COMMENT ON COLUMN workflow_executions.completed_at IS 'Time at which the workflow reached a terminal state. NULL until then.';
COMMENT ON COLUMN workflow_executions.execution_time_ms IS 'Time from started_at to completed_at in milliseconds. NULL until the workflow ends.';
COMMENT ON COLUMN workflow_executions.error_message IS 'Reason for the failure or cancellation.';
COMMENT ON COLUMN workflow_executions.metadata IS 'Caller-defined JSON object.';
COMMENT ON COLUMN workflow_executions.created_at IS 'Time of the insert.';
COMMENT ON COLUMN workflow_executions.updated_at IS 'Time of the last update of the row.';
