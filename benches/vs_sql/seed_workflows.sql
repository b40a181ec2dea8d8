-- Workflows $1 to $2, each with its first journal row, as StartWorkflow writes them, but with
-- ids that both sides can derive from the number.
WITH started AS (
    INSERT INTO workflow_executions
        (id, correlation_id, workflow_type, current_state, namespace, metadata, request_digest)
    SELECT lpad(to_hex(number), 32, '0')::uuid, lpad(to_hex(number), 32, '0')::uuid, 'vs_sql',
           'PENDING', 'bench', '{"team": "red", "priority": "high", "dry_run": false}',
           '\x000102030405060708090a0b0c0d0e0f'
      FROM generate_series($1, $2) AS number
    RETURNING id
)
INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
SELECT gen_random_uuid(), id, 'workflow', 'PENDING', 'start', 'bench' FROM started
