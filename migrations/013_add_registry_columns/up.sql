-- Lock: ACCESS EXCLUSIVE on node_registrations: builds 1 index

-- Adds the registry's own data to that reported by the node. The default owner only
-- fills rows inserted by hand before RegistryService existed; no caller can have that
-- namespace. The default is dropped so that new rows must name their owner.
-- DiscoverNodes relies on the TTL being at most a day.
ALTER TABLE node_registrations
    ADD COLUMN owner VARCHAR(255) NOT NULL DEFAULT 'bridgebook.unknown',
    ADD COLUMN heartbeat_ttl_ms BIGINT NOT NULL DEFAULT 300000
        CONSTRAINT node_registrations_heartbeat_ttl_ms_check CHECK (heartbeat_ttl_ms BETWEEN 1 AND 86400000),
    ADD COLUMN health_before_silence VARCHAR(50);
ALTER TABLE node_registrations ALTER COLUMN owner DROP DEFAULT;
UPDATE node_registrations SET health_status = 'UNHEALTHY'
 WHERE health_status NOT IN ('HEALTHY', 'DEGRADED', 'UNHEALTHY');
ALTER TABLE node_registrations
    ADD CONSTRAINT node_registrations_health_status_check
        CHECK (health_status IN ('HEALTHY', 'DEGRADED', 'UNHEALTHY')),
    ADD CONSTRAINT node_registrations_health_before_silence_check
        CHECK (health_before_silence IN ('HEALTHY', 'DEGRADED'));

-- Supports the filter and the sort order of DiscoverNodes; node_id breaks ties.
-- owner has no index and capabilities has no GIN index, because every heartbeat would
-- have to maintain them. Only ListNodes would use them, and it can afford to read all
-- nodes.
CREATE INDEX idx_node_registrations_node_type_health_status_last_heartbeat
    ON node_registrations (node_type, health_status, last_heartbeat DESC, node_id DESC);

COMMENT ON COLUMN node_registrations.owner IS 'Tenant that first registered the node. No other tenant can change it.';
COMMENT ON COLUMN node_registrations.heartbeat_ttl_ms IS 'Time after a heartbeat until the node is stale, in milliseconds. At most a day.';
COMMENT ON COLUMN node_registrations.health_before_silence IS 'health_status before the sweeper marked the node stale. NULL if the node is not marked; the next heartbeat clears it.';
