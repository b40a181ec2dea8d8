-- Lock: SHARE UPDATE EXCLUSIVE on bridge_states: reads no rows

-- Remembers the revisions of deleted bridges. Without it a new bridge with the same id would
-- start at revision 1 again, and a change that expects an old revision would overwrite it.
-- A bridge that was stored before this migration gets its row when it is deleted.
CREATE TABLE bridge_revisions (
    namespace VARCHAR(255) NOT NULL,
    bridge_id UUID NOT NULL,
    revision BIGINT NOT NULL CONSTRAINT bridge_revisions_revision_check CHECK (revision >= 0),
    CONSTRAINT bridge_revisions_pkey PRIMARY KEY (bridge_id, namespace)
);

COMMENT ON TABLE bridge_revisions IS 'Last revisions of deleted bridges. A new bridge with the same id continues from there. Rows are never deleted.';
COMMENT ON COLUMN bridge_revisions.namespace IS 'Tenant that owns the bridge.';
COMMENT ON COLUMN bridge_revisions.bridge_id IS 'Id of the bridge.';
COMMENT ON COLUMN bridge_revisions.revision IS 'Last revision of the deleted bridges with this id. 0 if none was deleted.';
COMMENT ON COLUMN bridge_states.revision IS 'Number of changes of the row, starting at 1. It is not reset if the bridge is deleted and stored again.';
