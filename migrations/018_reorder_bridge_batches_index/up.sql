-- An index on (namespace, …) that no look for a batch by its key can take: of a table that
-- grew lately PostgreSQL takes it for as good as the key, and reads all batches of a tenant
-- for each. Another collation is one that `namespace = …` does not fit.
CREATE INDEX idx_bridge_batches_namespace_c_created_at
    ON bridge_batches (namespace COLLATE "C", created_at);
DROP INDEX idx_bridge_batches_namespace_created_at;
