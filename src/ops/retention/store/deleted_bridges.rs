//! Removing and counting the batches of deleted bridges.
//!
//! A deleted bridge with many batches moves to the namespace of deleted rows. Its batches keep the
//! namespace of the tenant, which bridge_revisions remembers. The parameters are those of the
//! statements in [`expired`](super::expired). The index on the last activity gives the order.

use crate::db::planner::{lateral, register};

/// Deletes the batches of a bridge in the namespace of deleted rows, and then the bridge.
/// bridge_revisions tells which tenant it belonged to. Keeps the bridge while it has batches.
pub(super) const DELETE: &str = concat!(
    "WITH bridge AS MATERIALIZED (
        SELECT bridge_id FROM bridge_states
         WHERE namespace = $1 AND $2 = '' AND updated_at < now() - $3 * INTERVAL '1 second'
         ORDER BY coalesce(last_aggregation_timestamp, created_at), bridge_id
         LIMIT 1 OFFSET $5 FOR UPDATE SKIP LOCKED
     ), batches AS MATERIALIZED (
        SELECT y.ctid FROM bridge",
    lateral!(
        "r",
        "SELECT namespace, bridge_id FROM bridge_revisions r
          WHERE r.bridge_id = bridge.bridge_id OFFSET 0"
    ),
    lateral!(
        "y",
        "SELECT y.ctid FROM bridge_batches y
          WHERE y.namespace = r.namespace AND y.bridge_id = r.bridge_id LIMIT $4"
    ),
    " LIMIT $4
     ), deleted AS (
        DELETE FROM bridge_batches b WHERE b.ctid = ANY (ARRAY(SELECT ctid FROM batches))
        RETURNING 1
     ), ended AS (
        DELETE FROM bridge_states b USING bridge
         WHERE b.bridge_id = bridge.bridge_id AND (SELECT count(*) FROM batches) < $4
           AND (SELECT count(*) FROM batches) = (SELECT count(*) FROM deleted)
        RETURNING 1
     )
     SELECT count(*) AS removed, EXISTS (SELECT FROM bridge) AS may_leave_some,
            CASE WHEN count(*) > 0 OR EXISTS (SELECT FROM ended) THEN 0
                 ELSE (SELECT count(*) FROM bridge) END AS kept
       FROM deleted"
);

/// Counts those batches.
pub(super) const COUNT: &str = concat!(
    "SELECT coalesce(sum(batches.count), 0)::BIGINT AS count,
            extract(epoch FROM now() - min(batches.oldest))::DOUBLE PRECISION AS oldest_seconds
       FROM (SELECT bridge_id FROM bridge_states
              WHERE namespace = $1 AND $2 = '' AND updated_at < now() - $3 * INTERVAL '1 second'
             OFFSET 0) bridge",
    lateral!(
        "batches",
        "SELECT count(*), min(y.created_at) AS oldest
           FROM bridge_revisions r JOIN bridge_batches y USING (namespace, bridge_id)
          WHERE r.bridge_id = bridge.bridge_id"
    )
);

/// Selects the id of a bridge in the namespace of deleted rows.
pub(super) const NAME: &str = "SELECT bridge_id::TEXT AS name FROM bridge_states
      WHERE namespace = $1 AND $2 = '' AND updated_at < now() - $3 * INTERVAL '1 second'
      ORDER BY coalesce(last_aggregation_timestamp, created_at), bridge_id
      LIMIT 1 OFFSET $4";

register!(
    "PruneRows DeletedBridges",
    false,
    [Text, Text, BigInt, BigInt, BigInt],
    || DELETE.to_owned()
);
register!(
    "RowName DeletedBridges",
    false,
    [Text, Text, BigInt, BigInt],
    || NAME.to_owned()
);
register!(
    "CountExpired DeletedBridges",
    false,
    [Text, Text, BigInt],
    || { COUNT.to_owned() }
);
