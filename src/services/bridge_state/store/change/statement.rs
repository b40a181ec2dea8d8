//! The statements of changes of bridges.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid};

use crate::{
    db::{
        batch::statement::batch_statement,
        feed::snapshot_bounds,
        journal::{PositionSql, Transition},
        planner::{in_set, left_lateral, left_lookup, same_namespace},
        schema::sql_types::Xid8,
    },
    domain::{
        digest::RequestDigest,
        id::{BatchId, BridgeId, TokenId, TransitionId},
        json::JsonObject,
        namespace::Scoped,
        position::Position,
    },
    services::{
        bridge_state::{
            model::{Bridge, BridgeChange, ENTITY_TYPE, Totals},
            store::{BridgeSql, bridge_columns},
        },
        fsm::store::{MachineSql, current_machine, machine_columns, outdated_machines},
    },
};

batch_statement! {
    /// Reads the database's time. With the first item of each bridge, reads the bridge and the
    /// version of its row. With the first item of each namespace, reads its current machine.
    /// With every item, reads the digest of the request that added its batch before, if any. With an
    /// item that consumes the journal, reads the row up to which it does, the floor, and the horizon.
    /// With a new bridge, reads the last revision of deleted ones with its id.
    ///
    /// The ids of bridges are unique across tenants, so the lookup ignores the namespace. For
    /// a bridge of another tenant, only its existence is returned.
    struct ReadBridges<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        batch_id: Option<BatchId> => Nullable<Uuid>,
        consumed_id: Option<TransitionId> => Nullable<Uuid>,
        reads_bridge: bool => Bool,
        reads_machine: bool => Bool,
    }
    returns (
        BigInt,
        Timestamptz,
        Bool,
        Nullable<BigInt>,
        Nullable<BridgeSql>,
        Nullable<BigInt>,
        Nullable<Bytea>,
        (Nullable<PositionSql>, Nullable<PositionSql>, Xid8),
        Nullable<MachineSql>,
    );
    concat!(
        ", ", snapshot_bounds!(),
        " SELECT item.ordinality, now(), taken.bridge_id IS NOT NULL, b.xmin::text::bigint, ",
                 bridge_columns!(), ",
                 r.revision, batch.request_digest, last.id, last.xid, last.seq,
                 floor.transition_id, floor.xid, floor.seq, bounds.horizon, ", machine_columns!(), "
            FROM bounds CROSS JOIN item",
        left_lateral!("taken",
            "SELECT b.xmin, b.* FROM bridge_states b
              WHERE item.reads_bridge AND b.bridge_id = item.bridge_id LIMIT 1"),
        left_lateral!("b", "SELECT taken.* WHERE taken.namespace = item.namespace"),
        left_lookup!("bridge_revisions", "r",
            "item.reads_bridge AND taken.bridge_id IS NULL AND r.bridge_id = item.bridge_id
                AND ", same_namespace!("r")),
        left_lookup!("bridge_batches", "batch",
            "batch.namespace = item.namespace AND batch.bridge_id = item.bridge_id
                AND batch.batch_id = item.batch_id"),
        left_lookup!("fsm_transitions", "last",
            "last.id = item.consumed_id AND ", same_namespace!("last")),
        left_lookup!("journal_floors", "floor",
            "item.consumed_id IS NOT NULL AND floor.namespace = item.namespace"),
        current_machine!()
    )
}

batch_statement! {
    /// Changes bridges, and stores their batches and transitions, except for bridges whose row
    /// changed since it was read. Writes nothing at all if a machine is outdated. An item is
    /// one change. The last one of a bridge carries the new content of its row. An unchanged
    /// document is NULL. Returns the ids of the changed bridges, and the positions of the
    /// transitions.
    ///
    /// A new bridge is stored only if no bridge with its id was deleted since it was read. Statements
    /// that store or delete a bridge write its row of bridge_revisions first, so they wait for
    /// each other.
    struct WriteBridges<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        changed_at: DateTime<Utc> => Timestamptz,
        request_digest: Option<RequestDigest> => Nullable<Bytea>,
        batch_id: Option<BatchId> => Nullable<Uuid>,
        workflows_processed: i64 => BigInt,
        items_aggregated: i64 => BigInt,
        transition_id: Option<TransitionId> => Nullable<Uuid>,
        from_state: Option<&'a str> => Nullable<Text>,
        to_state: Option<&'a str> => Nullable<Text>,
        transition_event: Option<&'a str> => Nullable<Text>,
        token_id: Option<TokenId> => Nullable<Uuid>,
        is_last: bool => Bool,
        version: Option<i64> => Nullable<BigInt>,
        last_revision: i64 => BigInt,
        total_workflows_processed: i64 => BigInt,
        total_items_aggregated: i64 => BigInt,
        aggregation_metadata: Option<&'a JsonObject> => Nullable<Jsonb>,
        current_fsm_state: &'a str => Text,
        last_aggregation_timestamp: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        revision: i64 => BigInt,
        consumed_xid: Option<i64> => Nullable<BigInt>,
        consumed_seq: Option<i64> => Nullable<BigInt>,
        consumed_transition_id: Option<TransitionId> => Nullable<Uuid>,
        consumed_digest: Option<RequestDigest> => Nullable<Bytea>,
        checks_machine: bool => Bool,
        machine_digest: Option<RequestDigest> => Nullable<Bytea>,
    }
    returns (Nullable<Uuid>, Nullable<PositionSql>);
    concat!(", ", outdated_machines!(), ", begun AS (
        INSERT INTO bridge_revisions AS r (namespace, bridge_id, revision)
        SELECT namespace, bridge_id, last_revision
          FROM item
         WHERE is_last AND version IS NULL AND NOT (SELECT is_outdated FROM outdated)
         ORDER BY ordinality
            ON CONFLICT ON CONSTRAINT bridge_revisions_pkey
            DO UPDATE SET revision = excluded.revision WHERE r.revision = excluded.revision
        RETURNING r.bridge_id
    ), inserted AS (
        INSERT INTO bridge_states
            (bridge_id, namespace, total_workflows_processed, total_items_aggregated,
             aggregation_metadata, current_fsm_state, last_aggregation_timestamp, created_at,
             updated_at, revision, request_digest, consumed_xid, consumed_seq,
             consumed_transition_id, consumed_digest)
        SELECT bridge_id, namespace, total_workflows_processed, total_items_aggregated,
               coalesce(aggregation_metadata, '{}'), current_fsm_state, last_aggregation_timestamp,
               changed_at, changed_at, revision, request_digest, consumed_xid::text::xid8,
               consumed_seq, consumed_transition_id, consumed_digest
          FROM item
         WHERE is_last AND version IS NULL
           AND ", in_set!("bridge_id", "SELECT bridge_id FROM begun"), "
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
               request_digest = item.request_digest,
               consumed_xid = item.consumed_xid::text::xid8, consumed_seq = item.consumed_seq,
               consumed_transition_id = item.consumed_transition_id,
               consumed_digest = item.consumed_digest
          FROM item
         WHERE b.bridge_id = item.bridge_id AND ", same_namespace!("b"), "
           AND item.is_last AND b.xmin = item.version::text::xid
           AND NOT (SELECT is_outdated FROM outdated)
        RETURNING b.bridge_id
    ), changed AS (
        SELECT * FROM inserted UNION ALL SELECT * FROM updated
    ), written AS (
        SELECT item.* FROM item
         WHERE ", in_set!("item.bridge_id", "SELECT bridge_id FROM changed"), "
    ), batches AS (
        INSERT INTO bridge_batches
            (namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest)
        SELECT namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest
          FROM written
         WHERE batch_id IS NOT NULL
    ), journaled AS (
        INSERT INTO fsm_transitions
            (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
             request_digest, token_id, created_at)
        SELECT transition_id, namespace, bridge_id, entity_type, from_state, to_state,
               transition_event, request_digest, token_id, changed_at
          FROM written
         WHERE transition_id IS NOT NULL
         ORDER BY ordinality
        RETURNING id, xid, seq
    )
    SELECT bridge_id, NULL::uuid, NULL::xid8, NULL::bigint FROM changed
     UNION ALL
    SELECT NULL, id, xid, seq FROM journaled")
}

impl<'a> WriteBridges<'a> {
    pub(super) fn push_change(
        &mut self,
        item: &'a Scoped<BridgeChange>,
        moved: Option<&'a Transition>,
    ) {
        let (workflows, items) = match &item.totals {
            Totals::Absolute { .. } => (0, 0),
            Totals::Batch {
                workflows, items, ..
            } => (*workflows, *items),
        };
        self.namespace.push(item.namespace.as_str());
        self.entity_type.push(ENTITY_TYPE);
        self.bridge_id.push(item.bridge_id);
        self.request_digest.push(Some(item.request_digest));
        self.batch_id.push(item.batch_id());
        self.workflows_processed.push(workflows);
        self.items_aggregated.push(items);
        self.transition_id.push(moved.map(|it| it.id));
        self.from_state
            .push(moved.and_then(|it| it.from_state.as_deref()));
        self.to_state.push(moved.map(|it| it.to_state.as_str()));
        self.transition_event
            .push(moved.map(|it| it.transition_event.as_str()));
        self.token_id.push(item.token_id);
    }

    pub(super) fn push_consumed(&mut self, bridge: &Bridge) {
        let consumed = bridge.consumed();
        self.consumed_xid.push(consumed.map(Position::xid_for_sql));
        self.consumed_seq.push(consumed.map(|it| it.seq));
        self.consumed_transition_id
            .push(consumed.map(|it| it.transition_id));
        self.consumed_digest.push(bridge.consumed_digest);
    }
}
