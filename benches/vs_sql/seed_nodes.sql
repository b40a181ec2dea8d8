-- Nodes 1 to $1 of fifty types, each with a different last_heartbeat within the last minute.
INSERT INTO node_registrations
    (node_id, node_type, node_version, capabilities, endpoints, metadata, health_status,
     last_heartbeat, owner, heartbeat_ttl_ms)
SELECT 'node-' || number, 'type-' || 1 + number % 50, '1.4.2',
       '{"stamps": true, "max_items": 500}', '{"grpc": "10.0.0.1:50051"}', '{"zone": "b"}',
       'HEALTHY', now() - number * interval '5 milliseconds', 'bench', 300000
  FROM generate_series(1, $1) AS number
