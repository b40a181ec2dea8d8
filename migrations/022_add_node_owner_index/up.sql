-- Lock: SHARE UPDATE EXCLUSIVE on node_registrations: builds 1 index

-- Supports DiscoverNodes with an owner: the nodes of other owners, however many, cost nothing.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_node_registrations_owner_node_type_last_heartbeat
    ON node_registrations (owner, node_type, health_status, last_heartbeat DESC, node_id DESC);
