-- Lock: SHARE UPDATE EXCLUSIVE on metadata_stamps: builds 1 index

-- Supports the first stamps of a workflow, for GetWorkflow. Without it, the planner reads the stamps
-- of all tenants by time once one workflow has nearly all stamps.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_metadata_stamps_workflow_id_created_at
    ON metadata_stamps (workflow_id, created_at DESC, id DESC);
