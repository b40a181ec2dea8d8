-- The machines of the user's own entity types. Versions are never changed; the
-- highest one is current.
CREATE TABLE fsm_machines (
    namespace VARCHAR(255) NOT NULL,
    entity_type VARCHAR(100) NOT NULL,
    version INTEGER NOT NULL CONSTRAINT fsm_machines_version_check CHECK (version > 0),
    definition JSONB NOT NULL,
    definition_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT fsm_machines_pkey PRIMARY KEY (namespace, entity_type, version)
);

COMMENT ON TABLE fsm_machines IS 'Which moves entities of a type may make; a row per version, the highest is current.';
COMMENT ON COLUMN fsm_machines.namespace IS 'The tenant that the machine belongs to.';
COMMENT ON COLUMN fsm_machines.entity_type IS 'The entities that it moves.';
COMMENT ON COLUMN fsm_machines.version IS 'Counts the definitions of the machine, from 1.';
COMMENT ON COLUMN fsm_machines.definition IS 'initial_state, terminal_states, and moves with from_state, transition_event and to_state.';
COMMENT ON COLUMN fsm_machines.definition_digest IS 'Digest of the definition; the same definition has the same.';
COMMENT ON COLUMN fsm_machines.created_at IS 'When the row was inserted.';

-- Where the user's own entities are. What they went through is in fsm_transitions.
CREATE TABLE fsm_entities (
    namespace VARCHAR(255) NOT NULL,
    entity_type VARCHAR(100) NOT NULL,
    entity_id UUID NOT NULL,
    current_state VARCHAR(50) NOT NULL,
    revision BIGINT NOT NULL CONSTRAINT fsm_entities_revision_check CHECK (revision > 0),
    state_since TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT fsm_entities_pkey PRIMARY KEY (namespace, entity_type, entity_id)
);

-- The filters and the order of ListEntities.
CREATE INDEX idx_fsm_entities_namespace_entity_type_state_since
    ON fsm_entities (namespace, entity_type, state_since, entity_id);
CREATE INDEX idx_fsm_entities_namespace_entity_type_current_state
    ON fsm_entities (namespace, entity_type, current_state, state_since, entity_id);

COMMENT ON TABLE fsm_entities IS 'Where each entity of the user''s own is now.';
COMMENT ON COLUMN fsm_entities.namespace IS 'The tenant that the entity belongs to.';
COMMENT ON COLUMN fsm_entities.entity_type IS 'What kind of entity it is.';
COMMENT ON COLUMN fsm_entities.entity_id IS 'The caller''s own name for it.';
COMMENT ON COLUMN fsm_entities.current_state IS 'The state that it is in.';
COMMENT ON COLUMN fsm_entities.revision IS 'How many moves it has made.';
COMMENT ON COLUMN fsm_entities.state_since IS 'When it made its last move, which is when the row was last changed.';
COMMENT ON COLUMN fsm_entities.created_at IS 'When it made its first move.';

-- The filters and the order of ListTransitions; seq orders moves of one time.
CREATE INDEX idx_fsm_transitions_namespace_entity_created_at_seq
    ON fsm_transitions (namespace, entity_type, entity_id, created_at, seq);
CREATE INDEX idx_fsm_transitions_namespace_entity_type_created_at_seq
    ON fsm_transitions (namespace, entity_type, created_at, seq);
