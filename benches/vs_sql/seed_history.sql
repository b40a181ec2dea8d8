-- The history of one entity: moves 1 to $1, one second apart.
INSERT INTO fsm_transitions
    (id, entity_id, entity_type, from_state, to_state, transition_event, namespace, created_at,
     request_digest)
SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'pendulum',
       (ARRAY['LEFT', 'RIGHT'])[1 + number % 2], (ARRAY['RIGHT', 'LEFT'])[1 + number % 2],
       'swing', 'bench', now() - ($1 - number) * interval '1 second',
       '\x000102030405060708090a0b0c0d0e0f'
  FROM generate_series(1, $1) AS number
