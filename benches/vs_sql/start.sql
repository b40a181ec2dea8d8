-- Equivalent of StartWorkflow: the workflow and its first journal row. The document and the
-- digest are literals, so that pgbench sends no parameters.
WITH started AS (
    INSERT INTO workflow_executions
        (id, correlation_id, workflow_type, current_state, namespace, metadata, request_digest)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'vs_sql', 'PENDING', 'bench',
            '{"team": "red", "priority": "high", "dry_run": false}',
            '\x000102030405060708090a0b0c0d0e0f')
    RETURNING id
)
INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
SELECT gen_random_uuid(), id, 'workflow', 'PENDING', 'start', 'bench' FROM started;
