-- Equivalent of AccumulateBridgeState: a row in bridge_batches and, unless the batch exists
-- already, the totals. The batch comes first, to keep the lock on the bridge short.
\set number random(1, :bridges)
WITH noted AS (
    INSERT INTO bridge_batches
        (namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest)
    VALUES ('bench', lpad(to_hex(:number::bigint), 32, '0')::uuid, gen_random_uuid(), 3, 40,
            '\x000102030405060708090a0b0c0d0e0f')
        ON CONFLICT ON CONSTRAINT bridge_batches_pkey DO NOTHING
    RETURNING bridge_id, workflows_processed, items_aggregated, request_digest
)
UPDATE bridge_states b
   SET total_workflows_processed = b.total_workflows_processed + noted.workflows_processed,
       total_items_aggregated = b.total_items_aggregated + noted.items_aggregated,
       last_aggregation_timestamp = now(), updated_at = now(), revision = b.revision + 1,
       request_digest = noted.request_digest
  FROM noted
 WHERE b.bridge_id = noted.bridge_id AND b.namespace = 'bench';
