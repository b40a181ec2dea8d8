ALTER TABLE fsm_transitions DROP COLUMN xid, DROP COLUMN seq;
