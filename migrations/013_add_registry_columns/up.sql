-- What the registry needs beside what a node says of itself. The default of
-- owner lasts only for rows that somebody inserted by hand before there was a
-- RegistryService; new rows have to name theirs.
-- DiscoverNodes counts on it that no TTL is longer than a day.
ALTER TABLE node_registrations
    ADD COLUMN owner VARCHAR(255) NOT NULL DEFAULT 'unknown',
    ADD COLUMN heartbeat_ttl_ms BIGINT NOT NULL DEFAULT 300000
        CONSTRAINT node_registrations_heartbeat_ttl_ms_check CHECK (heartbeat_ttl_ms BETWEEN 1 AND 86400000),
    ADD COLUMN health_before_silence VARCHAR(50);
ALTER TABLE node_registrations ALTER COLUMN owner DROP DEFAULT;

-- The filter and the order of DiscoverNodes; node_id makes the order total.
-- There is none on owner and no GIN index on capabilities: every heartbeat would
-- pay for them, and only ListNodes would use them, which can read all nodes.
CREATE INDEX idx_node_registrations_node_type_health_status_last_heartbeat
    ON node_registrations (node_type, health_status, last_heartbeat DESC, node_id DESC);

COMMENT ON COLUMN node_registrations.owner IS 'The namespace that registered the node first, and the only one that changes it.';
COMMENT ON COLUMN node_registrations.heartbeat_ttl_ms IS 'For how long after a heartbeat the node counts as alive, in milliseconds; at most a day.';
COMMENT ON COLUMN node_registrations.health_before_silence IS 'What health_status was when the sweeper found the node silent; NULL if it did not since the last heartbeat.';
