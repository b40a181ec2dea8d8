-- Entities 1 to $1, each with its first journal row, as RecordTransition writes them, but with
-- ids that both sides can derive from the number. Existing entities stay as they are.
WITH started AS (
    INSERT INTO fsm_entities
        (namespace, entity_type, entity_id, current_state, revision, state_since, created_at)
    SELECT 'bench', 'valve', lpad(to_hex(number), 32, '0')::uuid, 'OPEN', 1, now(), now()
      FROM generate_series(1, $1) AS number
        ON CONFLICT ON CONSTRAINT fsm_entities_pkey DO NOTHING
    RETURNING entity_id
)
INSERT INTO fsm_transitions
    (id, entity_id, entity_type, to_state, transition_event, namespace, request_digest)
SELECT gen_random_uuid(), entity_id, 'valve', 'OPEN', 'start', 'bench',
       '\x000102030405060708090a0b0c0d0e0f'
  FROM started
