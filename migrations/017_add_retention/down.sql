DROP INDEX CONCURRENTLY IF EXISTS idx_bridge_batches_namespace_created_at;
DROP INDEX CONCURRENTLY IF EXISTS idx_workflow_executions_namespace_completed_at;
DROP TABLE IF EXISTS retention_policies;
