-- Lock: SHARE on fsm_transitions: builds 2 indexes

-- Machines of tenant-defined entity types. A version is never updated; a new
-- definition becomes a new version.
CREATE TABLE fsm_machines (
    namespace VARCHAR(255) NOT NULL,
    entity_type VARCHAR(100) NOT NULL,
    version INTEGER NOT NULL CONSTRAINT fsm_machines_version_check CHECK (version > 0),
    definition JSONB NOT NULL,
    definition_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT fsm_machines_pkey PRIMARY KEY (namespace, entity_type, version)
);

COMMENT ON TABLE fsm_machines IS 'State machines of tenant-defined entity types: one row per version. The highest version is current.';
COMMENT ON COLUMN fsm_machines.namespace IS 'Tenant that owns the machine.';
COMMENT ON COLUMN fsm_machines.entity_type IS 'Type of the entities that the machine governs.';
COMMENT ON COLUMN fsm_machines.version IS 'Version of the machine, starting at 1.';
COMMENT ON COLUMN fsm_machines.definition IS 'JSON object: initial_state, terminal_states, and moves with from_state, transition_event and to_state.';
COMMENT ON COLUMN fsm_machines.definition_digest IS 'Digest of the definition. Equal definitions have equal digests.';
COMMENT ON COLUMN fsm_machines.created_at IS 'Time of the insert.';

-- Current states of entities of tenant-defined types. fsm_transitions has their history.
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

-- Support the filters and the sort order of ListEntities.
CREATE INDEX idx_fsm_entities_namespace_entity_type_state_since
    ON fsm_entities (namespace, entity_type, state_since, entity_id);
CREATE INDEX idx_fsm_entities_namespace_entity_type_current_state
    ON fsm_entities (namespace, entity_type, current_state, state_since, entity_id);

COMMENT ON TABLE fsm_entities IS 'Current state of each entity of a tenant-defined type.';
COMMENT ON COLUMN fsm_entities.namespace IS 'Tenant that owns the entity.';
COMMENT ON COLUMN fsm_entities.entity_type IS 'Type of the entity.';
COMMENT ON COLUMN fsm_entities.entity_id IS 'The caller''s id of the entity.';
COMMENT ON COLUMN fsm_entities.current_state IS 'Current state of the entity.';
COMMENT ON COLUMN fsm_entities.revision IS 'Number of transitions made.';
COMMENT ON COLUMN fsm_entities.state_since IS 'Time of the last transition, which is also the last update of the row.';
COMMENT ON COLUMN fsm_entities.created_at IS 'Time of the first transition.';

-- Support the filters and the sort order of ListTransitions. seq orders transitions
-- with the same time.
CREATE INDEX idx_fsm_transitions_namespace_entity_created_at_seq
    ON fsm_transitions (namespace, entity_type, entity_id, created_at, seq);
CREATE INDEX idx_fsm_transitions_namespace_entity_type_created_at_seq
    ON fsm_transitions (namespace, entity_type, created_at, seq);
