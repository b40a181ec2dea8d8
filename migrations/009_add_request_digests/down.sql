ALTER TABLE fsm_transitions DROP COLUMN request_digest;
ALTER TABLE metadata_stamps DROP COLUMN request_digest;
ALTER TABLE workflow_steps DROP COLUMN request_digest;
ALTER TABLE workflow_executions DROP COLUMN request_digest;
