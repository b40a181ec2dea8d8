-- The largest rows that the tables can hold, of a tenant with the longest name. The
-- documents are as large as an older version of the service stored them: 1 MiB of text,
-- which is 4.8 MB as protobuf.
CREATE TEMPORARY TABLE large AS
    SELECT jsonb_build_object('n', jsonb_agg(1)) AS document, repeat('€', 65536) AS message,
           'n' || repeat('s', 254) AS namespace, 'e' || repeat('v', 99) AS event,
           's' || repeat('t', 45) AS state
      FROM generate_series(1, 440000);

INSERT INTO workflow_executions
    (id, correlation_id, workflow_type, current_state, namespace, error_message, metadata)
SELECT gen_random_uuid(), gen_random_uuid(), event,
       CASE WHEN number = 1 THEN 'PROCESSING' ELSE 'FAILED' END, namespace,
       CASE WHEN number <= 3 THEN message END,
       CASE WHEN number <= 3 THEN document ELSE '{"a": 1}' END
  FROM large, generate_series(1, 1000) number;

INSERT INTO workflow_steps
    (id, namespace, workflow_id, step_name, step_order, status, execution_time_ms, step_data,
     error_message)
SELECT gen_random_uuid(), large.namespace, workflow.id, repeat('€', 100), number, 'FAILED',
       9223372036854775807,
       CASE WHEN number <= 2 THEN document ELSE '{"a": 1}' END,
       CASE WHEN number <= 2 THEN message END
  FROM large, generate_series(1, 1001) number,
       (SELECT id FROM workflow_executions
         WHERE error_message IS NOT NULL AND current_state = 'FAILED' LIMIT 1) workflow;

INSERT INTO metadata_stamps (id, namespace, workflow_id, file_hash, stamp_data, created_at)
SELECT gen_random_uuid(), namespace, workflow_id, repeat('h', 128), step_data,
       now() + (2000 - step_order) * interval '1 second'
  FROM workflow_steps;

INSERT INTO fsm_transitions
    (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
     transition_data, token_id)
SELECT gen_random_uuid(), large.namespace, gen_random_uuid(), event, state || number,
       state || number, event, CASE WHEN number IN (100, 500) THEN document ELSE '{"a": 1}' END,
       gen_random_uuid()
  FROM large, generate_series(100, 1100) number;

INSERT INTO fsm_entities
    (namespace, entity_type, entity_id, current_state, revision, state_since, created_at)
SELECT namespace, event, gen_random_uuid(), state, 9223372036854775807, now(), now()
  FROM large, generate_series(1, 1001);

INSERT INTO bridge_states
    (bridge_id, namespace, aggregation_metadata, current_fsm_state, revision)
SELECT gen_random_uuid(), namespace,
       CASE WHEN number <= 4 THEN document ELSE '{"a": 1}' END, state, 1000000000
  FROM large, generate_series(1, 1001) number;

INSERT INTO node_registrations
    (node_id, owner, node_type, node_version, capabilities, endpoints, metadata, health_status,
     last_heartbeat)
SELECT 'n' || number || repeat('d', 250), namespace, event, repeat('1', 50),
       CASE WHEN number IN (10, 11, 1001) THEN document ELSE '{"a": 1}' END, '{"a": 1}',
       CASE WHEN number IN (10, 11, 1001) THEN document ELSE '{"a": 1}' END, 'HEALTHY',
       now() - number * interval '1 millisecond'
  FROM large, generate_series(10, 1010) number;

INSERT INTO api_tokens (id, name, role, namespaces, secret_sha256)
SELECT gen_random_uuid(), repeat('€', 100), 'READER', array_fill(namespace, ARRAY[100]),
       decode(repeat('00', 32), 'hex')
  FROM large, generate_series(1, 200);

INSERT INTO retention_policies (namespace, table_name, max_age_seconds)
SELECT left(number || namespace, 255), 'metadata_stamps', 31536000000
  FROM large, generate_series(1, 1001) number;

INSERT INTO quotas (subject_kind, subject, calls_per_second, items_per_second, calls_in_progress, weight)
SELECT 'namespace', left(number || namespace, 255), 2147483647, 2147483647, 2147483647, 100
  FROM large, generate_series(1, 1001) number;

-- Other namespaces, for the summaries of operators.
INSERT INTO bridge_states (bridge_id, namespace, current_fsm_state, revision)
SELECT gen_random_uuid(), left(number || namespace, 255), state, 1
  FROM large, generate_series(1, 1001) number;
