DROP TABLE bridge_revisions;
COMMENT ON COLUMN bridge_states.revision IS 'Number of changes of the row, starting at 1.';
