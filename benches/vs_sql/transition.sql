-- What TransitionWorkflow writes: the workflow's new state and a row of the journal.
-- The state that it comes from is a condition of the UPDATE: checked, and thereby
-- known, without a second look at the row. Every client takes every :clients-th
-- workflow, so no two ever take the same one.
\set number :first + :client_id + :clients * :taken
\set taken :taken + 1
WITH moved AS (
    UPDATE workflow_executions
       SET current_state = 'PROCESSING', updated_at = now()
     WHERE id = lpad(to_hex(:number::bigint), 32, '0')::uuid
       AND namespace = 'bench'
       AND current_state = 'PENDING'
    RETURNING id
)
INSERT INTO fsm_transitions
    (id, entity_id, entity_type, from_state, to_state, transition_event, namespace, request_digest)
SELECT gen_random_uuid(), id, 'workflow', 'PENDING', 'PROCESSING', 'process', 'bench',
       '\x000102030405060708090a0b0c0d0e0f'
  FROM moved;
