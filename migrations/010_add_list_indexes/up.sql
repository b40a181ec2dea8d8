-- Lock: SHARE UPDATE EXCLUSIVE on workflow_executions: builds 4 indexes
-- Lock: SHARE UPDATE EXCLUSIVE on metadata_stamps: builds 1 index

-- Support the filters and the sort orders of ListWorkflows and ListStamps. id breaks
-- ties, so that a page can start right after the last row of the previous page.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_executions_namespace_started_at_id
    ON workflow_executions (namespace, started_at DESC, id DESC);
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_executions_namespace_current_state_started_at_id
    ON workflow_executions (namespace, current_state, started_at DESC, id DESC);
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_executions_namespace_workflow_type_started_at_id
    ON workflow_executions (namespace, workflow_type, started_at DESC, id DESC);
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_exec_metadata_gin
    ON workflow_executions USING GIN (metadata);
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_metadata_stamps_namespace_file_hash_created_at_id
    ON metadata_stamps (namespace, file_hash, created_at DESC, id DESC);
