-- "Common Query 5" of the schema's description, with a limit and with all columns that
-- DiscoverNodes returns.
\set number random(1, :types)
SELECT node_id, owner, node_type, node_version, capabilities, endpoints, metadata, health_status,
       heartbeat_ttl_ms, last_heartbeat, registered_at, created_at, updated_at
  FROM node_registrations
 WHERE node_type = 'type-' || :number::bigint
   AND health_status = 'HEALTHY'
   AND last_heartbeat > now() - interval '5 minutes'
 ORDER BY last_heartbeat DESC
 LIMIT 20;
