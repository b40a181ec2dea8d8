//! Deleting workflows.

use std::{cmp::Reverse, collections::HashSet};

use diesel::{
    prelude::*,
    sql_types::{Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::no_workflow;
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
        id::{TokenId, TransitionId, WorkflowId},
        journal::{DELETE_EVENT, DELETED},
        namespace::Scoped,
    },
    services::workflow::model::{Deletion, ENTITY_TYPE},
};

batch_statement! {
    /// Deletes workflows, each with a last row of the journal. Steps go with
    /// them and stamps lose them by the rules of the foreign keys.
    struct Delete<'a> {
        namespace: &'a str => Text,
        id: WorkflowId => Uuid,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns Uuid;
    ", locked AS (
        SELECT w.id, w.current_state, w.updated_at, item.namespace, item.transition_id, item.entity_type,
               item.to_state, item.transition_event, item.token_id
          FROM item CROSS JOIN LATERAL (
               SELECT w.id, w.current_state, w.updated_at FROM workflow_executions w
                WHERE w.id = item.id AND w.namespace IS NOT DISTINCT FROM item.namespace
                  FOR UPDATE) w
    ), deleted AS (
        DELETE FROM workflow_executions w USING locked
         WHERE w.id = locked.id AND w.namespace IS NOT DISTINCT FROM locked.namespace
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event, token_id,
         created_at)
    SELECT transition_id, namespace, id, entity_type, current_state, to_state, transition_event,
           token_id,
           -- Not before the move that it waited for.
           greatest(now(), updated_at)
      FROM locked
    RETURNING id"
}

/// Deletes workflows; answers whether there was something to delete.
pub struct DeleteWorkflows;

impl Operation for DeleteWorkflows {
    const NAME: &'static str = "DeleteWorkflows";

    type Item = Scoped<Deletion>;
    type Answer = bool;
    type Key = WorkflowId;

    fn key(item: &Self::Item) -> WorkflowId {
        item.workflow_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<bool>>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for mut round in rounds(items, |item| [item.workflow_id]) {
                // Everybody locks in the same order, moves too, so nobody waits in a circle.
                round.sort_unstable_by_key(|(_, item)| Reverse(item.workflow_id));
                let statement = Delete {
                    namespace: column(&round, |item| item.namespace.as_str()),
                    id: column(&round, |item| item.workflow_id),
                    transition_id: column(&round, |item| item.id),
                    entity_type: column(&round, |_| ENTITY_TYPE),
                    to_state: column(&round, |_| DELETED),
                    transition_event: column(&round, |_| DELETE_EVENT),
                    token_id: column(&round, |item| item.token_id),
                    ..Delete::default()
                };
                let deleted: Vec<TransitionId> = statement.load(connection).await?;
                let mut deleted: HashSet<_> = deleted.into_iter().collect();
                if deleted.len() < round.len() {
                    deleted.extend(deleted_before(connection, &round).await?);
                }
                let round = round.into_iter();
                answers.extend(round.map(|(place, item)| (place, answer(item, &deleted))));
            }
            Ok(in_order(answers))
        })
    }
}

/// The deletions that an earlier try of these very calls made, whose answer was
/// lost with its connection. The ids are ours, so they are of no other tenant.
async fn deleted_before(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<Deletion>>],
) -> QueryResult<Vec<TransitionId>> {
    fsm_transitions::table
        .filter(fsm_transitions::id.eq_any(column(round, |item| item.id)))
        .select(fsm_transitions::id)
        .load(connection)
        .await
}

fn answer(item: &Deletion, deleted: &HashSet<TransitionId>) -> Result<bool> {
    match deleted.contains(&item.id) {
        false if !item.allow_missing => Err(no_workflow(item.workflow_id)),
        is_deleted => Ok(is_deleted),
    }
}
