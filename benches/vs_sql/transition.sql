-- Equivalent of TransitionWorkflow: the workflow's new state and a journal row. The UPDATE
-- checks the old state in its condition, so it needs no second read of the row. Each client
-- takes every :clients-th workflow, so no two clients take the same one.
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
