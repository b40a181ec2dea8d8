ALTER TABLE fsm_transitions DROP COLUMN namespace;
ALTER TABLE workflow_steps DROP COLUMN namespace;
