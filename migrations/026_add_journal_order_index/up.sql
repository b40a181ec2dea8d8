-- Lock: SHARE UPDATE EXCLUSIVE on fsm_transitions: builds 1 index

-- Lets a reader follow the journal of one namespace in the order of its positions.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_fsm_transitions_namespace_xid_seq
    ON fsm_transitions (namespace COLLATE "C", xid, seq);
