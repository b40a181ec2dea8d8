-- Equivalent of Heartbeat.
\set number random(1, :nodes)
UPDATE node_registrations
   SET last_heartbeat = now(), updated_at = now()
 WHERE node_id = 'node-' || :number::bigint AND owner = 'bench';
