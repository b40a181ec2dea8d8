CREATE TABLE metadata_stamps (
    id UUID CONSTRAINT metadata_stamps_pkey PRIMARY KEY,
    workflow_id UUID
        CONSTRAINT metadata_stamps_workflow_id_fkey
        REFERENCES workflow_executions (id) ON DELETE SET NULL,
    file_hash VARCHAR(128) NOT NULL,
    stamp_data JSONB NOT NULL DEFAULT '{}',
    namespace VARCHAR(255) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_metadata_stamps_workflow_id ON metadata_stamps (workflow_id);
CREATE INDEX idx_metadata_stamps_file_hash ON metadata_stamps (file_hash);
CREATE INDEX idx_metadata_stamps_namespace ON metadata_stamps (namespace);
CREATE INDEX idx_metadata_stamps_created_at ON metadata_stamps (created_at DESC);
CREATE INDEX idx_metadata_stamps_namespace_created_at ON metadata_stamps (namespace, created_at DESC);

COMMENT ON TABLE metadata_stamps IS 'What was found out about files; appended, never changed, outlives the workflow.';
COMMENT ON COLUMN metadata_stamps.id IS 'Primary key; UUIDv7 where the server made it.';
COMMENT ON COLUMN metadata_stamps.workflow_id IS 'The workflow that made the stamp; NULL if none did, or if it was deleted since.';
COMMENT ON COLUMN metadata_stamps.file_hash IS 'The hash of the file''s content.';
COMMENT ON COLUMN metadata_stamps.stamp_data IS 'What was found out; a JSON object.';
COMMENT ON COLUMN metadata_stamps.namespace IS 'The tenant that the stamp belongs to.';
COMMENT ON COLUMN metadata_stamps.created_at IS 'When the row was inserted.';
