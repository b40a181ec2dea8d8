CREATE TABLE node_registrations (
    node_id VARCHAR(255) CONSTRAINT node_registrations_pkey PRIMARY KEY,
    node_type VARCHAR(100) NOT NULL,
    node_version VARCHAR(50) NOT NULL,
    capabilities JSONB NOT NULL DEFAULT '{}',
    endpoints JSONB NOT NULL DEFAULT '{}',
    metadata JSONB NOT NULL DEFAULT '{}',
    health_status VARCHAR(50) NOT NULL,
    last_heartbeat TIMESTAMPTZ NOT NULL DEFAULT now(),
    registered_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_node_registrations_health_status ON node_registrations (health_status);
CREATE INDEX idx_node_registrations_node_type ON node_registrations (node_type);
CREATE INDEX idx_node_registrations_last_heartbeat ON node_registrations (last_heartbeat DESC);
CREATE INDEX idx_node_registrations_node_type_health_status ON node_registrations (node_type, health_status);

COMMENT ON TABLE node_registrations IS 'Registered nodes and their health. Shared by all tenants.';
COMMENT ON COLUMN node_registrations.node_id IS 'Primary key. Name that the node gives itself.';
COMMENT ON COLUMN node_registrations.node_type IS 'orchestrator, reducer, registry or a custom type.';
COMMENT ON COLUMN node_registrations.node_version IS 'Version of the software that the node runs.';
COMMENT ON COLUMN node_registrations.capabilities IS 'Capabilities of the node; a JSON object.';
COMMENT ON COLUMN node_registrations.endpoints IS 'Addresses of the node; a JSON object.';
COMMENT ON COLUMN node_registrations.metadata IS 'Further data that the node reports; a JSON object.';
COMMENT ON COLUMN node_registrations.health_status IS 'HEALTHY, DEGRADED or UNHEALTHY.';
COMMENT ON COLUMN node_registrations.last_heartbeat IS 'Time of the last heartbeat, by the clock of the database.';
COMMENT ON COLUMN node_registrations.registered_at IS 'Time of the last registration.';
COMMENT ON COLUMN node_registrations.created_at IS 'Time of the insert.';
COMMENT ON COLUMN node_registrations.updated_at IS 'Time of the last update of the row.';
