-- Lock: ACCESS EXCLUSIVE on bridge_states: reads no rows

-- IF NOT EXISTS, because migration 027 added the column for a while before its first release.
ALTER TABLE bridge_states ADD COLUMN IF NOT EXISTS consumed_digest BYTEA;

COMMENT ON COLUMN bridge_states.consumed_digest IS 'Digest of the request that consumed the row of consumed_xid. A retry has the same digest.';
