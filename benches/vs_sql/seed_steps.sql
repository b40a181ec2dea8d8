-- Five steps for each of the workflows $1 to $2.
INSERT INTO workflow_steps
    (id, namespace, workflow_id, step_name, step_order, status, execution_time_ms, step_data,
     request_digest)
SELECT gen_random_uuid(), 'bench', lpad(to_hex(number), 32, '0')::uuid, 'validate_metadata', place,
       'COMPLETED', 12, '{"tool": "stamper", "files": "one"}',
       '\x000102030405060708090a0b0c0d0e0f'
  FROM generate_series($1, $2) AS number, generate_series(0, 4) AS place
