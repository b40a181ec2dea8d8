ALTER TABLE fsm_transitions DROP COLUMN token_id;
