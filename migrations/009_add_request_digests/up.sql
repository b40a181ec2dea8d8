-- Lock: ACCESS EXCLUSIVE on workflow_executions: reads no rows
-- Lock: ACCESS EXCLUSIVE on workflow_steps: reads no rows
-- Lock: ACCESS EXCLUSIVE on metadata_stamps: reads no rows
-- Lock: ACCESS EXCLUSIVE on fsm_transitions: reads no rows

-- Distinguishes a retry (same id, same content) from a different request with the same
-- id. The digest is the first 16 bytes of the SHA-256 of the request; see RequestDigest.
-- NULL: no request wrote the row, or the row is older than this migration.
ALTER TABLE workflow_executions ADD COLUMN request_digest BYTEA;
ALTER TABLE workflow_steps ADD COLUMN request_digest BYTEA;
ALTER TABLE metadata_stamps ADD COLUMN request_digest BYTEA;
ALTER TABLE fsm_transitions ADD COLUMN request_digest BYTEA;

COMMENT ON COLUMN workflow_executions.request_digest IS 'Digest of the request that started the workflow. A retry has the same digest.';
COMMENT ON COLUMN workflow_steps.request_digest IS 'Digest of the request that recorded the step. A retry has the same digest.';
COMMENT ON COLUMN metadata_stamps.request_digest IS 'Digest of the request that recorded the stamp. A retry has the same digest.';
COMMENT ON COLUMN fsm_transitions.request_digest IS 'Digest of the request that made the transition. A retry has the same digest. NULL if the server made the transition.';
