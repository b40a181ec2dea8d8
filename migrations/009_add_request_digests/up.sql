-- Tells a retry (same id, same content) from another request under the same id.
-- 16 bytes: the first half of the SHA-256 of the request, see src/digest.rs.
-- NULL: the row was not written by a request, or before there were digests.
ALTER TABLE workflow_executions ADD COLUMN request_digest BYTEA;
ALTER TABLE workflow_steps ADD COLUMN request_digest BYTEA;
ALTER TABLE metadata_stamps ADD COLUMN request_digest BYTEA;
ALTER TABLE fsm_transitions ADD COLUMN request_digest BYTEA;

COMMENT ON COLUMN workflow_executions.request_digest IS 'Digest of the request that started it; a retry has the same.';
COMMENT ON COLUMN workflow_steps.request_digest IS 'Digest of the request that recorded it; a retry has the same.';
COMMENT ON COLUMN metadata_stamps.request_digest IS 'Digest of the request that recorded it; a retry has the same.';
COMMENT ON COLUMN fsm_transitions.request_digest IS 'Digest of the request that made the move; a retry has the same. NULL where the server made the move.';
