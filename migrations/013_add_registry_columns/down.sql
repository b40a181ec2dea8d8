DROP INDEX idx_node_registrations_node_type_health_status_last_heartbeat;
ALTER TABLE node_registrations
    DROP COLUMN health_before_silence, DROP COLUMN heartbeat_ttl_ms, DROP COLUMN owner;
