//! Deregistering nodes.

use std::collections::HashSet;

use diesel::{
    prelude::*,
    sql_types::{Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::no_node;
use crate::{
    db::{
        DbError,
        batch::{
            Operation,
            rounds::{Indexed, in_order, rounds},
            statement::{batch_statement, column},
        },
        schema::fsm_transitions,
    },
    domain::{
        error::Result,
        id::{TokenId, TransitionId},
        namespace::{Namespace, Scoped},
    },
    services::registry::model::{DEREGISTER_EVENT, DEREGISTERED, Deregistration, ENTITY_TYPE},
};

batch_statement! {
    /// Removes nodes, each with a last row of the journal.
    struct Deregister<'a> {
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
    returns Uuid;
    ", locked AS (
        SELECT n.node_id, n.health_status, n.updated_at, item.owner, item.transition_id, item.namespace,
               item.entity_id, item.entity_type, item.to_state, item.transition_event, item.token_id
          FROM item CROSS JOIN LATERAL (
               SELECT n.node_id, n.health_status, n.updated_at FROM node_registrations n
                WHERE n.node_id = item.node_id AND n.owner = item.owner
                  FOR UPDATE) n
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
           -- Not before the heartbeat that it waited for.
           greatest(now(), updated_at)
      FROM locked
    RETURNING id"
}

/// Removes nodes; answers whether there was something to remove.
pub struct DeregisterNodes;

impl Operation for DeregisterNodes {
    const NAME: &'static str = "DeregisterNodes";

    type Item = Scoped<Deregistration>;
    type Answer = bool;
    type Key = uuid::Uuid;

    fn key(item: &Self::Item) -> uuid::Uuid {
        item.node_id.entity_id()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<bool>>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for mut round in rounds(items, |item| [item.node_id.entity_id()]) {
                // Everybody locks in the same order, so nobody waits in a circle.
                round.sort_unstable_by_key(|(_, item)| item.node_id.as_str());
                let mut deregistered = deregister(connection, &round).await?;
                if deregistered.len() < round.len() {
                    deregistered.extend(deregistered_before(connection, &round).await?);
                }
                let round = round.into_iter();
                answers.extend(round.map(|(place, item)| (place, answer(item, &deregistered))));
            }
            Ok(in_order(answers))
        })
    }
}

async fn deregister(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<Deregistration>>],
) -> QueryResult<HashSet<TransitionId>> {
    let journal = Namespace::registry();
    let statement = Deregister {
        node_id: column(round, |item| item.node_id.as_str()),
        owner: column(round, |item| item.namespace.as_str()),
        transition_id: column(round, |item| item.transition_id),
        namespace: column(round, |_| journal.as_str()),
        entity_id: column(round, |item| item.node_id.entity_id()),
        entity_type: column(round, |_| ENTITY_TYPE),
        to_state: column(round, |_| DEREGISTERED),
        transition_event: column(round, |_| DEREGISTER_EVENT),
        token_id: column(round, |item| item.token_id),
        ..Deregister::default()
    };
    let deregistered: Vec<TransitionId> = statement.load(connection).await?;
    Ok(deregistered.into_iter().collect())
}

/// The deregistrations that an earlier try of these very calls made, whose
/// answer was lost with its connection. The ids are ours, so they are of no
/// other tenant.
async fn deregistered_before(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<Deregistration>>],
) -> QueryResult<Vec<TransitionId>> {
    fsm_transitions::table
        .filter(fsm_transitions::id.eq_any(column(round, |item| item.transition_id)))
        .select(fsm_transitions::id)
        .load(connection)
        .await
}

fn answer(item: &Deregistration, deregistered: &HashSet<TransitionId>) -> Result<bool> {
    match deregistered.contains(&item.transition_id) {
        false if !item.allow_missing => Err(no_node(&item.node_id)),
        is_deregistered => Ok(is_deregistered),
    }
}
