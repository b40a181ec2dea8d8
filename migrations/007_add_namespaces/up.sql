-- Every row has one namespace: steps and journal rows too. The default lasts
-- only for rows that an older version left behind; new rows have to name theirs.
ALTER TABLE workflow_steps ADD COLUMN namespace VARCHAR(255);
UPDATE workflow_steps
   SET namespace = workflow_executions.namespace
  FROM workflow_executions
 WHERE workflow_executions.id = workflow_steps.workflow_id;
ALTER TABLE workflow_steps ALTER COLUMN namespace SET NOT NULL;

ALTER TABLE fsm_transitions ADD COLUMN namespace VARCHAR(255) NOT NULL DEFAULT 'unknown';
ALTER TABLE fsm_transitions ALTER COLUMN namespace DROP DEFAULT;

COMMENT ON COLUMN workflow_steps.namespace IS 'The tenant that the step belongs to; that of its workflow.';
COMMENT ON COLUMN fsm_transitions.namespace IS 'The tenant that the entity belongs to.';
