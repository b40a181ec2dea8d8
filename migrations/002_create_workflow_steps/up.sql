-- Lock: SHARE ROW EXCLUSIVE on workflow_executions: reads no rows

CREATE TABLE workflow_steps (
    id UUID CONSTRAINT workflow_steps_pkey PRIMARY KEY,
    workflow_id UUID NOT NULL
        CONSTRAINT workflow_steps_workflow_id_fkey
        REFERENCES workflow_executions (id) ON DELETE CASCADE,
    step_name VARCHAR(100) NOT NULL,
    step_order INTEGER NOT NULL
        CONSTRAINT workflow_steps_step_order_check CHECK (step_order >= 0),
    status VARCHAR(50) NOT NULL,
    execution_time_ms BIGINT
        CONSTRAINT workflow_steps_execution_time_ms_check CHECK (execution_time_ms >= 0),
    step_data JSONB NOT NULL DEFAULT '{}',
    error_message TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_workflow_steps_workflow_id ON workflow_steps (workflow_id);
CREATE INDEX idx_workflow_steps_status ON workflow_steps (status);
CREATE INDEX idx_workflow_steps_created_at ON workflow_steps (created_at DESC);
CREATE INDEX idx_workflow_steps_workflow_id_step_order ON workflow_steps (workflow_id, step_order);

COMMENT ON TABLE workflow_steps IS 'Steps of workflows. Append-only: rows are never updated, and are deleted with their workflow.';
COMMENT ON COLUMN workflow_steps.id IS 'Primary key. A UUIDv7 if the server generated it.';
COMMENT ON COLUMN workflow_steps.workflow_id IS 'Workflow that the step belongs to.';
COMMENT ON COLUMN workflow_steps.step_name IS 'Name of the step.';
COMMENT ON COLUMN workflow_steps.step_order IS 'Position among the steps of the workflow. Not necessarily unique.';
COMMENT ON COLUMN workflow_steps.status IS 'PENDING, PROCESSING, COMPLETED, FAILED or SKIPPED.';
COMMENT ON COLUMN workflow_steps.execution_time_ms IS 'Duration in milliseconds, reported by the caller.';
COMMENT ON COLUMN workflow_steps.step_data IS 'Caller-defined JSON object.';
COMMENT ON COLUMN workflow_steps.error_message IS 'Reason for the failure.';
COMMENT ON COLUMN workflow_steps.created_at IS 'Time of the insert.';
