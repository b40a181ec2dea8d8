-- Lock: ACCESS EXCLUSIVE on fsm_machines: builds 1 index

-- Gives PutMachine a row to lock for each entity type, instead of the whole table of entities.
-- Moves lock the row for sharing. Their first move, or the first machine, adds it.
CREATE TABLE fsm_entity_types (
    namespace VARCHAR(255) NOT NULL,
    entity_type VARCHAR(100) NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1
        CONSTRAINT fsm_entity_types_revision_check CHECK (revision > 0),
    deletion_id UUID,
    last_version INTEGER NOT NULL DEFAULT 0
        CONSTRAINT fsm_entity_types_last_version_check CHECK (last_version >= 0),
    CONSTRAINT fsm_entity_types_pkey PRIMARY KEY (namespace, entity_type)
);

-- Lets the service recognise a call that it runs again because the answer of its commit was
-- lost. NULL in versions from before this migration.
ALTER TABLE fsm_machines ADD COLUMN change_id UUID;
CREATE INDEX idx_fsm_machines_change_id ON fsm_machines (change_id);

COMMENT ON TABLE fsm_entity_types IS 'Entity types that have a machine or entities. Rows are locks of their machines, and are never deleted.';
COMMENT ON COLUMN fsm_entity_types.namespace IS 'Tenant that owns the type.';
COMMENT ON COLUMN fsm_entity_types.entity_type IS 'Name of the type.';
COMMENT ON COLUMN fsm_entity_types.revision IS 'Changes whenever the row is locked for a change of the machine. A move that sees it change is decided again.';
COMMENT ON COLUMN fsm_entity_types.deletion_id IS 'Id that the service made for the call that last deleted the machine. NULL if none did.';
COMMENT ON COLUMN fsm_entity_types.last_version IS 'Last version of the deleted machine, 0 if none was deleted. The next machine of the type has later versions.';
COMMENT ON COLUMN fsm_machines.change_id IS 'Id that the service made for the call that put the version.';
