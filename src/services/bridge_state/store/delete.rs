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
        planner::{in_set, lateral, same_namespace},
    },
    domain::{
        error::Error,
        id::{BridgeId, TokenId, TransitionId},
        journal::{DELETE_EVENT, DELETED},
        namespace::Scoped,
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
    struct DeleteRows<'a> {
        namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns Uuid;
    concat!(", ended AS (
        INSERT INTO bridge_revisions AS r (namespace, bridge_id, revision)
        SELECT b.namespace, b.bridge_id, b.revision
          FROM item", lateral!("b",
              "SELECT b.* FROM bridge_states b
                WHERE b.bridge_id = item.bridge_id AND ", same_namespace!("b"), " LIMIT 1"), "
         ORDER BY item.ordinality
            ON CONFLICT ON CONSTRAINT bridge_revisions_pkey
            DO UPDATE SET revision = greatest(r.revision, excluded.revision)
        RETURNING r.bridge_id
    ), deleted AS (
        DELETE FROM bridge_states b USING item
         WHERE b.bridge_id = item.bridge_id AND ", same_namespace!("b"), "
           AND ", in_set!("b.bridge_id", "SELECT bridge_id FROM ended"), "
        RETURNING b.bridge_id, b.namespace, b.current_fsm_state, b.updated_at, item.transition_id,
                  item.entity_type, item.to_state, item.transition_event, item.token_id
    ), deleted_batches AS (
        DELETE FROM bridge_batches b WHERE b.ctid = ANY (ARRAY(
            SELECT x.ctid FROM deleted", lateral!("x",
                "SELECT y.ctid FROM bridge_batches y
                  WHERE y.namespace = deleted.namespace AND y.bridge_id = deleted.bridge_id
                 OFFSET 0"), "))
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event, token_id,
         created_at)
    SELECT transition_id, namespace, bridge_id, entity_type, current_fsm_state, to_state,
           transition_event, token_id,
           -- Not before the transition whose lock the delete waited for.
           greatest(now(), updated_at)
      FROM deleted
    RETURNING id")
}

/// Deletes bridges.
pub type DeleteBridges = DeleteOperation<BridgeRemoval>;

/// The implementation of [`DeleteBridges`].
pub struct BridgeRemoval;

impl Delete for BridgeRemoval {
    const NAME: &'static str = "DeleteBridges";
    type Request = BridgeDeletion;
    type Key<'a> = BridgeId;

    fn key(request: &BridgeDeletion) -> BridgeId {
        request.bridge_id
    }

    fn transition_id(request: &BridgeDeletion) -> TransitionId {
        request.id
    }

    fn not_found(request: &Scoped<BridgeDeletion>) -> Option<Error> {
        (!request.allow_missing).then(|| no_bridge(&request.namespace, request.bridge_id))
    }

    async fn delete(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<BridgeDeletion>>],
    ) -> QueryResult<Vec<TransitionId>> {
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
                    false => delete_rows(&round).load(connection).await,
                }
            })
            .await
    }
}

fn delete_rows<'a>(round: &[Indexed<'a, Scoped<BridgeDeletion>>]) -> DeleteRows<'a> {
    DeleteRows {
        namespace: column(round, |item| item.namespace.as_str()),
        bridge_id: column(round, |item| item.bridge_id),
        transition_id: column(round, |item| item.id),
        entity_type: column(round, |_| ENTITY_TYPE),
        to_state: column(round, |_| DELETED),
        transition_event: column(round, |_| DELETE_EVENT),
        token_id: column(round, |item| item.token_id),
    }
}
