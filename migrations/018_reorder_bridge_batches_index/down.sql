CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_bridge_batches_namespace_created_at
    ON bridge_batches (namespace, created_at);
DROP INDEX CONCURRENTLY IF EXISTS idx_bridge_batches_namespace_c_created_at;
