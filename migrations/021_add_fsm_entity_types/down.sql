DROP TABLE fsm_entity_types;
DROP INDEX idx_fsm_machines_change_id;
ALTER TABLE fsm_machines DROP COLUMN change_id;
