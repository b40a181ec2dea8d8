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

COMMENT ON TABLE fsm_transitions IS 'The journal: one row per state change of any entity; appended, never changed.';
COMMENT ON COLUMN fsm_transitions.id IS 'Primary key; the caller''s transition_id, or a UUIDv7 of the server''s.';
COMMENT ON COLUMN fsm_transitions.entity_id IS 'The entity that moved; for entity_type workflow the workflow''s id.';
COMMENT ON COLUMN fsm_transitions.entity_type IS 'workflow, bridge, node, or a type of the user''s own.';
COMMENT ON COLUMN fsm_transitions.from_state IS 'The state that it left; NULL for an entity''s first move.';
COMMENT ON COLUMN fsm_transitions.to_state IS 'The state that it went to.';
COMMENT ON COLUMN fsm_transitions.transition_event IS 'Why it moved.';
COMMENT ON COLUMN fsm_transitions.transition_data IS 'Whatever the caller keeps with the move; a JSON object.';
COMMENT ON COLUMN fsm_transitions.created_at IS 'When the row was inserted.';
