-- Lock: SHARE ROW EXCLUSIVE on workflow_executions: reads no rows

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

COMMENT ON TABLE metadata_stamps IS 'Stamps: metadata of files. Append-only; rows outlive their workflow.';
COMMENT ON COLUMN metadata_stamps.id IS 'Primary key. A UUIDv7 if the server generated it.';
COMMENT ON COLUMN metadata_stamps.workflow_id IS 'Workflow that made the stamp. NULL if no workflow made it, or if that workflow was deleted.';
COMMENT ON COLUMN metadata_stamps.file_hash IS 'Hash of the content of the file.';
COMMENT ON COLUMN metadata_stamps.stamp_data IS 'Metadata of the file; a JSON object.';
COMMENT ON COLUMN metadata_stamps.namespace IS 'Tenant that owns the stamp.';
COMMENT ON COLUMN metadata_stamps.created_at IS 'Time of the insert.';
