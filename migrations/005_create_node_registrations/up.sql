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

COMMENT ON TABLE node_registrations IS 'Which nodes there are, and which of them are alive; shared by all namespaces.';
COMMENT ON COLUMN node_registrations.node_id IS 'Primary key: the node''s own name.';
COMMENT ON COLUMN node_registrations.node_type IS 'orchestrator, reducer, registry, or a type of the user''s own.';
COMMENT ON COLUMN node_registrations.node_version IS 'The version of the software that the node runs.';
COMMENT ON COLUMN node_registrations.capabilities IS 'What the node can do; a JSON object.';
COMMENT ON COLUMN node_registrations.endpoints IS 'Where the node can be reached; a JSON object.';
COMMENT ON COLUMN node_registrations.metadata IS 'Whatever else the node says of itself; a JSON object.';
COMMENT ON COLUMN node_registrations.health_status IS 'How the node is: HEALTHY, UNHEALTHY and the like.';
COMMENT ON COLUMN node_registrations.last_heartbeat IS 'When the node was last heard of, by the database''s clock.';
COMMENT ON COLUMN node_registrations.registered_at IS 'When the node last registered.';
COMMENT ON COLUMN node_registrations.created_at IS 'When the row was inserted.';
COMMENT ON COLUMN node_registrations.updated_at IS 'When the row was last changed.';
