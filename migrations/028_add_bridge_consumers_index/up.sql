-- Lock: SHARE UPDATE EXCLUSIVE on bridge_states: builds 1 index

-- Finds the bridge of each namespace that has consumed least, for the metric of the lag. Most
-- bridges consume nothing, and have no entry.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_bridge_states_namespace_consumed
    ON bridge_states (namespace COLLATE "C", consumed_xid, consumed_seq)
    WHERE consumed_xid IS NOT NULL;
