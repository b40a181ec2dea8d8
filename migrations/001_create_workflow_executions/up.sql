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

-- The unique key on correlation_id is the index on correlation_id.
CREATE INDEX idx_workflow_executions_namespace ON workflow_executions (namespace);
CREATE INDEX idx_workflow_executions_current_state ON workflow_executions (current_state);
CREATE INDEX idx_workflow_executions_started_at ON workflow_executions (started_at DESC);

COMMENT ON TABLE workflow_executions IS 'One row per run of a workflow.';
COMMENT ON COLUMN workflow_executions.id IS 'Primary key; UUIDv7 where the server made it.';
COMMENT ON COLUMN workflow_executions.correlation_id IS 'The caller''s own name for the run; the idempotency key of its start.';
COMMENT ON COLUMN workflow_executions.workflow_type IS 'What kind of workflow it is, in the caller''s words.';
COMMENT ON COLUMN workflow_executions.current_state IS 'PENDING, PROCESSING, COMPLETED, FAILED or CANCELLED.';
COMMENT ON COLUMN workflow_executions.namespace IS 'The tenant that the run belongs to.';
COMMENT ON COLUMN workflow_executions.started_at IS 'When it began: the caller''s time if one was given, else the time of the insert.';
COMMENT ON COLUMN workflow_executions.completed_at IS 'When it reached a terminal state; NULL until then.';
COMMENT ON COLUMN workflow_executions.execution_time_ms IS 'From started_at to completed_at in milliseconds; NULL until it ended.';
COMMENT ON COLUMN workflow_executions.error_message IS 'Why it failed or was cancelled.';
COMMENT ON COLUMN workflow_executions.metadata IS 'Whatever the caller keeps with the run; a JSON object.';
COMMENT ON COLUMN workflow_executions.created_at IS 'When the row was inserted.';
COMMENT ON COLUMN workflow_executions.updated_at IS 'When the row was last changed.';
