ALTER TABLE bridge_states DROP COLUMN consumed_digest;
