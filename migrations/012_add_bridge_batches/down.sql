DROP TABLE bridge_batches;
DROP INDEX idx_bridge_states_agg_metadata_gin;
DROP INDEX idx_bridge_states_namespace_last_activity;
ALTER TABLE bridge_states DROP COLUMN request_digest, DROP COLUMN revision;
