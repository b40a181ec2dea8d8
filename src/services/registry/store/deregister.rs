//! Deregistering nodes.

use diesel::{
    QueryResult,
    sql_types::{Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::no_node;
use crate::{
    db::{
        batch::{
            delete::{Delete, DeleteOperation},
            rounds::Indexed,
            statement::{batch_statement, column},
        },
        journal::PositionSql,
        planner::lateral,
    },
    domain::{
        error::Error,
        id::{TokenId, TransitionId},
        namespace::{Namespace, Scoped},
        position::Position,
    },
    services::registry::model::{DEREGISTER_EVENT, DEREGISTERED, Deregistration, ENTITY_TYPE},
};

batch_statement! {
    /// Removes nodes, each with a last row of the journal.
    struct DeleteRows<'a> {
        node_id: &'a str => Text,
        owner: &'a str => Text,
        transition_id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        entity_type: &'a str => Text,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns PositionSql;
    concat!(", locked AS (
        SELECT n.node_id, n.health_status, n.updated_at, item.owner, item.transition_id, item.namespace,
               item.entity_id, item.entity_type, item.to_state, item.transition_event, item.token_id
          FROM item", lateral!("n",
               "SELECT n.node_id, n.health_status, n.updated_at FROM node_registrations n
                 WHERE n.node_id = item.node_id AND n.owner = item.owner FOR UPDATE"), "
    ), deleted AS (
        DELETE FROM node_registrations n USING locked
         WHERE n.node_id = locked.node_id AND n.owner = locked.owner
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
         transition_data, token_id, created_at)
    SELECT transition_id, namespace, entity_id, entity_type, health_status, to_state,
           transition_event, jsonb_build_object('node_id', node_id, 'owner', owner),
           token_id,
           -- Not before the heartbeat whose lock the delete waited for.
           greatest(now(), updated_at)
      FROM locked
    RETURNING id, xid, seq")
}

/// Removes nodes.
pub type DeregisterNodes = DeleteOperation<NodeDeletion>;

/// The implementation of [`DeregisterNodes`].
pub struct NodeDeletion;

impl Delete for NodeDeletion {
    const NAME: &'static str = "DeregisterNodes";
    type Request = Deregistration;
    type Key<'a> = &'a str;
    const JOURNAL: (&'static str, &'static str) = (ENTITY_TYPE, DEREGISTERED);

    fn key(request: &Deregistration) -> &str {
        request.node_id.as_str()
    }

    fn transition_id(request: &Deregistration) -> TransitionId {
        request.transition_id
    }

    fn entity(request: &Scoped<Deregistration>) -> (&str, uuid::Uuid) {
        (Namespace::registry_name(), request.node_id.entity_id())
    }

    fn not_found(request: &Scoped<Deregistration>) -> Option<Error> {
        (!request.allow_missing).then(|| no_node(&request.node_id))
    }

    async fn delete(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<Deregistration>>],
    ) -> QueryResult<Vec<Position>> {
        let journal = Namespace::registry();
        let statement = DeleteRows {
            node_id: column(round, |item| item.node_id.as_str()),
            owner: column(round, |item| item.namespace.as_str()),
            transition_id: column(round, |item| item.transition_id),
            namespace: column(round, |_| journal.as_str()),
            entity_id: column(round, |item| item.node_id.entity_id()),
            entity_type: column(round, |_| ENTITY_TYPE),
            to_state: column(round, |_| DEREGISTERED),
            transition_event: column(round, |_| DEREGISTER_EVENT),
            token_id: column(round, |item| item.token_id),
        };
        statement.load(connection).await
    }
}
