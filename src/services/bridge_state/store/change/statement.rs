//! The SQL of changing bridges.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid};

use crate::services::bridge_state::store::{BridgeSql, bridge_columns};
use crate::{
    db::batch::statement::batch_statement,
    domain::{
        digest::RequestDigest,
        id::{BatchId, BridgeId, TokenId, TransitionId},
        json::JsonObject,
    },
    services::fsm::store::{MachineSql, machine_columns, outdated_machines},
};

batch_statement! {
    /// Reads bridges at the database's present, each with the version of its row,
    /// with the first item of each namespace; with every item the digest of the
    /// request, if it was done before; and with the first item of each namespace its
    /// current machine.
    ///
    /// Bridges are looked for beyond the namespace, because their key reaches
    /// beyond it; of those of other tenants it is only said that they are there.
    struct ReadBridges<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        batch_id: BatchId => Uuid,
        reads_bridge: bool => Bool,
        reads_machine: bool => Bool,
    }
    returns (
        BigInt,
        Timestamptz,
        Bool,
        Nullable<BigInt>,
        Nullable<BridgeSql>,
        Nullable<Bytea>,
        Nullable<MachineSql>,
    );
    concat!(
        " SELECT item.ordinality, now(), taken.bridge_id IS NOT NULL, b.xmin::text::bigint, ",
                 bridge_columns!(), ",
                 batch.request_digest, ", machine_columns!(), "
            FROM item
            LEFT JOIN LATERAL (
                 SELECT b.xmin, b.* FROM bridge_states b
                  WHERE item.reads_bridge AND b.bridge_id = item.bridge_id LIMIT 1) taken ON true
            LEFT JOIN LATERAL (
                 SELECT taken.* WHERE taken.namespace = item.namespace) b ON true
            LEFT JOIN LATERAL (
                 SELECT b.request_digest FROM bridge_batches b
                  WHERE b.namespace = item.namespace AND b.bridge_id = item.bridge_id
                    AND b.batch_id = item.batch_id
                  LIMIT 1) batch ON true
            LEFT JOIN LATERAL (
                 SELECT * FROM fsm_machines m
                  WHERE item.reads_machine
                    AND m.namespace = item.namespace AND m.entity_type = item.entity_type
                  ORDER BY m.version DESC LIMIT 1) m ON true"
    )
}

batch_statement! {
    /// Changes bridges, notes their batches and journals their moves, but of
    /// none whose row is not the version that was read, and of none at all if a
    /// machine is not current any more. An item is one change; the last one of
    /// a bridge carries what becomes of its row. A document that does not change is NULL.
    struct WriteBridges<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        changed_at: DateTime<Utc> => Timestamptz,
        request_digest: Option<RequestDigest> => Nullable<Bytea>,
        batch_id: BatchId => Uuid,
        workflows_processed: i64 => BigInt,
        items_aggregated: i64 => BigInt,
        transition_id: Option<TransitionId> => Nullable<Uuid>,
        from_state: Option<&'a str> => Nullable<Text>,
        to_state: Option<&'a str> => Nullable<Text>,
        transition_event: Option<&'a str> => Nullable<Text>,
        token_id: Option<TokenId> => Nullable<Uuid>,
        is_last: bool => Bool,
        version: Option<i64> => Nullable<BigInt>,
        total_workflows_processed: i64 => BigInt,
        total_items_aggregated: i64 => BigInt,
        aggregation_metadata: Option<&'a JsonObject> => Nullable<Jsonb>,
        current_fsm_state: &'a str => Text,
        last_aggregation_timestamp: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        revision: i64 => BigInt,
        checks_machine: bool => Bool,
        machine_digest: Option<RequestDigest> => Nullable<Bytea>,
    }
    returns Uuid;
    concat!(", ", outdated_machines!(), ", inserted AS (
        INSERT INTO bridge_states
            (bridge_id, namespace, total_workflows_processed, total_items_aggregated,
             aggregation_metadata, current_fsm_state, last_aggregation_timestamp, created_at,
             updated_at, revision, request_digest)
        SELECT bridge_id, namespace, total_workflows_processed, total_items_aggregated,
               coalesce(aggregation_metadata, '{}'), current_fsm_state, last_aggregation_timestamp,
               changed_at, changed_at, revision, request_digest
          FROM item
         WHERE is_last AND version IS NULL AND NOT (SELECT is_outdated FROM outdated)
            ON CONFLICT ON CONSTRAINT bridge_states_pkey DO NOTHING
        RETURNING bridge_id
    ), updated AS (
        UPDATE bridge_states b
           SET total_workflows_processed = item.total_workflows_processed,
               total_items_aggregated = item.total_items_aggregated,
               aggregation_metadata = coalesce(item.aggregation_metadata, b.aggregation_metadata),
               current_fsm_state = item.current_fsm_state,
               last_aggregation_timestamp = item.last_aggregation_timestamp,
               updated_at = item.changed_at, revision = item.revision,
               request_digest = item.request_digest
          FROM item
         WHERE b.bridge_id = item.bridge_id AND b.namespace IS NOT DISTINCT FROM item.namespace
           AND item.is_last AND b.xmin = item.version::text::xid
           AND NOT (SELECT is_outdated FROM outdated)
        RETURNING b.bridge_id
    ), changed AS (
        SELECT * FROM inserted UNION ALL SELECT * FROM updated
    ), written AS (
        SELECT item.* FROM item
         -- IS TRUE: looked up in a hash table, not joined.
         WHERE (item.bridge_id IN (SELECT bridge_id FROM changed)) IS TRUE
    ), noted AS (
        INSERT INTO bridge_batches
            (namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest)
        SELECT namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest
          FROM written
    ), journaled AS (
        INSERT INTO fsm_transitions
            (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
             request_digest, token_id, created_at)
        SELECT transition_id, namespace, bridge_id, entity_type, from_state, to_state,
               transition_event, request_digest, token_id, changed_at
          FROM written
         WHERE transition_id IS NOT NULL
         ORDER BY ordinality DESC
    )
    SELECT bridge_id FROM changed")
}
