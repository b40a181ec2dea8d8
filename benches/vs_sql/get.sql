-- "Common Query 1" of the schema's description, for one namespace, with all columns that
-- GetWorkflow returns.
\set number random(1, :readable)
SELECT we.id, we.correlation_id, we.namespace, we.workflow_type, we.current_state, we.started_at,
       we.completed_at, we.execution_time_ms, we.error_message, we.metadata, we.created_at,
       we.updated_at,
       json_agg(
           json_build_object(
               'id', ws.id,
               'namespace', ws.namespace,
               'workflow_id', ws.workflow_id,
               'step_name', ws.step_name,
               'step_order', ws.step_order,
               'status', ws.status,
               'execution_time_ms', ws.execution_time_ms,
               'step_data', ws.step_data,
               'error_message', ws.error_message,
               'created_at', ws.created_at
           ) ORDER BY ws.step_order
       ) AS steps
  FROM workflow_executions we
  LEFT JOIN workflow_steps ws ON ws.workflow_id = we.id AND ws.namespace = we.namespace
 WHERE we.correlation_id = lpad(to_hex(:number::bigint), 32, '0')::uuid
   AND we.namespace = 'bench'
 GROUP BY we.id;
