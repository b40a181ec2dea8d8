CREATE TABLE fsm_transitions (
    id UUID CONSTRAINT fsm_transitions_pkey PRIMARY KEY,
    entity_id UUID NOT NULL,
    entity_type VARCHAR(100) NOT NULL,
    from_state VARCHAR(50),
    to_state VARCHAR(50) NOT NULL,
    transition_event VARCHAR(100) NOT NULL,
    transition_data JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_fsm_transitions_entity_id_entity_type ON fsm_transitions (entity_id, entity_type);
CREATE INDEX idx_fsm_transitions_entity_type ON fsm_transitions (entity_type);
CREATE INDEX idx_fsm_transitions_created_at ON fsm_transitions (created_at DESC);
CREATE INDEX idx_fsm_transitions_from_state_to_state ON fsm_transitions (from_state, to_state);

COMMENT ON TABLE fsm_transitions IS 'The journal: one row per state transition of any entity. Append-only: rows are never updated.';
COMMENT ON COLUMN fsm_transitions.id IS 'Primary key. The caller''s transition_id, or a UUIDv7 that the server generated.';
COMMENT ON COLUMN fsm_transitions.entity_id IS 'Entity that made the transition. For entity_type workflow, the id of the workflow.';
COMMENT ON COLUMN fsm_transitions.entity_type IS 'workflow, bridge, node or a tenant-defined type.';
COMMENT ON COLUMN fsm_transitions.from_state IS 'State before the transition. NULL for the first transition of an entity.';
COMMENT ON COLUMN fsm_transitions.to_state IS 'State after the transition.';
COMMENT ON COLUMN fsm_transitions.transition_event IS 'Event that caused the transition.';
COMMENT ON COLUMN fsm_transitions.transition_data IS 'Caller-defined JSON object.';
COMMENT ON COLUMN fsm_transitions.created_at IS 'Time of the insert.';
