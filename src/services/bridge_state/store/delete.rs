//! Deleting bridges.

use std::collections::HashSet;

use diesel::{
    QueryResult,
    sql_types::{Nullable, Text, Uuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::no_bridge;
use crate::{
    db::{
        batch::{
            delete::{Delete, DeleteOperation},
            rounds::Indexed,
            statement::{batch_statement, column},
        },
        journal::PositionSql,
        planner::{in_set, lateral, same_namespace},
    },
    domain::{
        error::Error,
        id::{BridgeId, TokenId, TransitionId},
        journal::{DELETE_EVENT, DELETED},
        namespace::{Namespace, Scoped},
        position::Position,
    },
    services::bridge_state::model::{BridgeDeletion, ENTITY_TYPE},
};

batch_statement! {
    /// Locks bridges. It waits for statements that add batches to them, so the next statement
    /// sees all batches.
    struct Lock<'a> {
        namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
    }
    returns Uuid;
    concat!(
        " SELECT b.bridge_id
            FROM item",
        lateral!("b",
            "SELECT b.bridge_id FROM bridge_states b
              WHERE b.bridge_id = item.bridge_id AND ", same_namespace!("b"), " FOR UPDATE")
    )
}

batch_statement! {
    /// Deletes bridges and their batches, each bridge with a last row of the journal. The last
    /// revision stays, so that a new bridge with the same id continues from it.
    ///
    /// A bridge with more than 10,000 batches only moves to the namespace of deleted rows, because
    /// the delete of millions would time out. There retention removes its batches in parts. It
    /// keeps its id until then, so no new bridge with that id meets batches of the old one.
    struct DeleteRows<'a> {
        namespace: &'a str => Text,
        deleted_namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns PositionSql;
    concat!(", found AS MATERIALIZED (
        SELECT b.namespace, b.bridge_id, b.revision, b.current_fsm_state, b.updated_at,
               item.ordinality, item.deleted_namespace, item.transition_id, item.entity_type,
               item.to_state, item.transition_event, item.token_id, batches.count > 10000 AS is_large
          FROM item", lateral!("b",
               "SELECT b.* FROM bridge_states b
                 WHERE b.bridge_id = item.bridge_id AND ", same_namespace!("b"), " LIMIT 1"),
               lateral!("batches",
               "SELECT count(*) FROM (SELECT FROM bridge_batches y
                                       WHERE y.namespace = b.namespace
                                         AND y.bridge_id = b.bridge_id LIMIT 10001) y"), "
    ), ended AS (
        INSERT INTO bridge_revisions AS r (namespace, bridge_id, revision)
        SELECT namespace, bridge_id, revision FROM found ORDER BY ordinality
            ON CONFLICT ON CONSTRAINT bridge_revisions_pkey
            DO UPDATE SET revision = greatest(r.revision, excluded.revision)
        RETURNING r.bridge_id
    ), deleted AS (
        DELETE FROM bridge_states b USING found
         WHERE b.bridge_id = found.bridge_id AND ", same_namespace!("b", "found"), "
           AND ", in_set!("b.bridge_id", "SELECT bridge_id FROM ended"), "
           AND NOT found.is_large
    ), moved AS (
        UPDATE bridge_states b
           SET namespace = found.deleted_namespace, updated_at = now(), consumed_xid = NULL,
               consumed_seq = NULL, consumed_transition_id = NULL, consumed_digest = NULL
          FROM found
         WHERE b.bridge_id = found.bridge_id AND ", same_namespace!("b", "found"), "
           AND ", in_set!("b.bridge_id", "SELECT bridge_id FROM ended"), "
           AND found.is_large
    ), deleted_batches AS (
        DELETE FROM bridge_batches b WHERE b.ctid = ANY (ARRAY(
            SELECT x.ctid FROM found", lateral!("x",
                "SELECT y.ctid FROM bridge_batches y
                  WHERE y.namespace = found.namespace AND y.bridge_id = found.bridge_id
                    AND NOT found.is_large
                 OFFSET 0"), "))
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event, token_id,
         created_at)
    SELECT transition_id, namespace, bridge_id, entity_type, current_fsm_state, to_state,
           transition_event, token_id,
           -- Not before the transition whose lock the delete waited for.
           greatest(now(), updated_at)
      FROM found
    RETURNING id, xid, seq")
}

/// Deletes bridges.
pub type DeleteBridges = DeleteOperation<BridgeRemoval>;

/// The implementation of [`DeleteBridges`].
pub struct BridgeRemoval;

impl Delete for BridgeRemoval {
    const NAME: &'static str = "DeleteBridges";
    type Request = BridgeDeletion;
    type Key<'a> = BridgeId;
    const JOURNAL: (&'static str, &'static str) = (ENTITY_TYPE, DELETED);

    fn key(request: &BridgeDeletion) -> BridgeId {
        request.bridge_id
    }

    fn transition_id(request: &BridgeDeletion) -> TransitionId {
        request.id
    }

    fn entity(request: &Scoped<BridgeDeletion>) -> (&str, uuid::Uuid) {
        (request.namespace.as_str(), request.bridge_id.0)
    }

    fn not_found(request: &Scoped<BridgeDeletion>) -> Option<Error> {
        (!request.allow_missing).then(|| no_bridge(&request.namespace, request.bridge_id))
    }

    async fn delete(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<BridgeDeletion>>],
    ) -> QueryResult<Vec<Position>> {
        let lock = Lock {
            namespace: column(round, |item| item.namespace.as_str()),
            bridge_id: column(round, |item| item.bridge_id),
        };
        connection
            .transaction(async |connection| {
                let locked: Vec<BridgeId> = lock.load(connection).await?;
                let locked: HashSet<BridgeId> = locked.into_iter().collect();
                // A bridge that appeared since is not locked, and may change during the delete.
                let round = round.iter().copied();
                let round = round.filter(|(_, item)| locked.contains(&item.bridge_id));
                let round: Vec<Indexed<_>> = round.collect();
                match round.is_empty() {
                    true => Ok(Vec::new()),
                    false => {
                        let deleted = Namespace::deleted();
                        delete_rows(&round, &deleted).load(connection).await
                    }
                }
            })
            .await
    }
}

fn delete_rows<'a>(
    round: &[Indexed<'a, Scoped<BridgeDeletion>>],
    deleted: &'a Namespace,
) -> DeleteRows<'a> {
    DeleteRows {
        namespace: column(round, |item| item.namespace.as_str()),
        deleted_namespace: column(round, |_| deleted.as_str()),
        bridge_id: column(round, |item| item.bridge_id),
        transition_id: column(round, |item| item.id),
        entity_type: column(round, |_| ENTITY_TYPE),
        to_state: column(round, |_| DELETED),
        transition_event: column(round, |_| DELETE_EVENT),
        token_id: column(round, |item| item.token_id),
    }
}
