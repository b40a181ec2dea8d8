-- Lock: SHARE UPDATE EXCLUSIVE on bridge_batches: builds 1 index

-- Replaces an index on (namespace, created_at) that the planner could use for lookups by
-- primary key. When the statistics of a growing table are outdated, the planner rates both
-- indexes alike, and each lookup may then read all batches of the tenant.
-- Under the collation "C" the index does not match `namespace = …`, so lookups cannot use
-- it. Pruning names the collation in its query.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_bridge_batches_namespace_c_created_at
    ON bridge_batches (namespace COLLATE "C", created_at);
DROP INDEX CONCURRENTLY IF EXISTS idx_bridge_batches_namespace_created_at;
