-- Bridges 1 to $1 with empty totals.
INSERT INTO bridge_states
    (bridge_id, namespace, aggregation_metadata, current_fsm_state, revision, request_digest)
SELECT lpad(to_hex(number), 32, '0')::uuid, 'bench', '{"source": "vs_sql"}', 'IDLE', 1,
       '\x000102030405060708090a0b0c0d0e0f'
  FROM generate_series(1, $1) AS number
