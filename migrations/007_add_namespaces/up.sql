-- Lock: ACCESS EXCLUSIVE on workflow_steps: updates all rows
-- Lock: ACCESS EXCLUSIVE on fsm_transitions: reads no rows

-- Gives steps and journal rows a namespace, so that every row belongs to one tenant.
-- The default only fills existing rows. It is dropped afterwards, so that new rows must
-- name their namespace.
ALTER TABLE workflow_steps ADD COLUMN namespace VARCHAR(255);
UPDATE workflow_steps
   SET namespace = workflow_executions.namespace
  FROM workflow_executions
 WHERE workflow_executions.id = workflow_steps.workflow_id;
ALTER TABLE workflow_steps ALTER COLUMN namespace SET NOT NULL;

ALTER TABLE fsm_transitions ADD COLUMN namespace VARCHAR(255) NOT NULL DEFAULT 'unknown';
ALTER TABLE fsm_transitions ALTER COLUMN namespace DROP DEFAULT;

COMMENT ON COLUMN workflow_steps.namespace IS 'Tenant that owns the step; the same as that of its workflow.';
COMMENT ON COLUMN fsm_transitions.namespace IS 'Tenant that owns the entity.';
