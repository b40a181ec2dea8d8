-- Equivalent of RecordTransition: the entity, new or moved to its other state, and a journal
-- row. RETURNING only sees the new row, so from_state is derived from that.
\set number random(1, :entities)
WITH moved AS (
    INSERT INTO fsm_entities AS e
        (namespace, entity_type, entity_id, current_state, revision, state_since, created_at)
    VALUES ('bench', 'valve', lpad(to_hex(:number::bigint), 32, '0')::uuid, 'OPEN', 1, now(), now())
        ON CONFLICT ON CONSTRAINT fsm_entities_pkey DO UPDATE
       SET current_state = CASE e.current_state WHEN 'OPEN' THEN 'CLOSED' ELSE 'OPEN' END,
           revision = e.revision + 1, state_since = now()
    RETURNING entity_id, current_state, revision, state_since
)
INSERT INTO fsm_transitions
    (id, entity_id, entity_type, from_state, to_state, transition_event, namespace, created_at,
     request_digest)
SELECT gen_random_uuid(), entity_id, 'valve',
       CASE WHEN revision > 1 THEN CASE current_state WHEN 'OPEN' THEN 'CLOSED' ELSE 'OPEN' END END,
       current_state, 'toggle', 'bench', state_since, '\x000102030405060708090a0b0c0d0e0f'
  FROM moved;
