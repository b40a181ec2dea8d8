-- Equivalent of BatchRecordSteps, 100 rows per transaction: five steps for each of 20
-- workflows. generate_series produces the rows, so that pgbench sends no parameters.
\set number random(1, :readable - 19)
INSERT INTO workflow_steps
    (id, namespace, workflow_id, step_name, step_order, status, execution_time_ms, step_data,
     request_digest)
SELECT gen_random_uuid(), 'bench', lpad(to_hex(:number::bigint + place / 5), 32, '0')::uuid,
       'validate_metadata', place % 5, 'COMPLETED', 12,
       '{"tool": "stamper", "files": "one"}', '\x000102030405060708090a0b0c0d0e0f'
  FROM generate_series(0, 99) AS place;
