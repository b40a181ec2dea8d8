//! Deleting workflows.

use diesel::{
    QueryResult,
    sql_types::{Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::no_workflow;
use crate::{
    db::{
        batch::{
            delete::{Delete, DeleteOperation},
            rounds::Indexed,
            statement::{batch_statement, column},
        },
        journal::PositionSql,
        planner::{lateral, same_namespace},
    },
    domain::{
        error::Error,
        id::{CorrelationId, TokenId, TransitionId, WorkflowId},
        journal::{DELETE_EVENT, DELETED},
        namespace::{Namespace, Scoped},
        position::Position,
    },
    services::workflow::model::{Deletion, ENTITY_TYPE},
};

batch_statement! {
    /// Deletes workflows, each with a last row of the journal. The foreign keys delete their
    /// steps, and detach their stamps. That may take minutes, so a workflow with more than 1000
    /// of them only moves to the namespace of deleted rows. There retention removes it in parts.
    /// Its correlation_id is free at once.
    struct DeleteRows<'a> {
        namespace: &'a str => Text,
        deleted_namespace: &'a str => Text,
        correlation_id: CorrelationId => Uuid,
        id: WorkflowId => Uuid,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns PositionSql;
    concat!(", locked AS (
        SELECT w.id, w.current_state, w.updated_at, item.namespace, item.deleted_namespace,
               item.correlation_id, item.transition_id, item.entity_type, item.to_state, item.transition_event,
               item.token_id, steps.count + stamps.count > 1000 AS is_large
          FROM item", lateral!("w",
               "SELECT w.id, w.current_state, w.updated_at FROM workflow_executions w
                 WHERE w.id = item.id AND ", same_namespace!("w"), " FOR UPDATE"),
               lateral!("steps",
               "SELECT count(*) FROM (SELECT FROM workflow_steps s
                                       WHERE s.workflow_id = w.id LIMIT 1001) s"),
               lateral!("stamps",
               "SELECT count(*) FROM (SELECT FROM metadata_stamps m
                                       WHERE m.workflow_id = w.id LIMIT 1001) m"), "
    ), deleted AS (
        DELETE FROM workflow_executions w USING locked
         WHERE w.id = locked.id AND ", same_namespace!("w", "locked"), " AND NOT locked.is_large
    ), moved AS (
        UPDATE workflow_executions w
           SET namespace = locked.deleted_namespace, correlation_id = locked.correlation_id,
               completed_at = now(), updated_at = now()
          FROM locked
         WHERE w.id = locked.id AND ", same_namespace!("w", "locked"), " AND locked.is_large
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event, token_id,
         created_at)
    SELECT transition_id, namespace, id, entity_type, current_state, to_state, transition_event,
           token_id,
           -- Not before the transition whose lock the delete waited for.
           greatest(now(), updated_at)
      FROM locked
    RETURNING id, xid, seq")
}

/// Deletes workflows.
pub type DeleteWorkflows = DeleteOperation<WorkflowDeletion>;

/// The implementation of [`DeleteWorkflows`].
pub struct WorkflowDeletion;

impl Delete for WorkflowDeletion {
    const NAME: &'static str = "DeleteWorkflows";
    type Request = Deletion;
    type Key<'a> = WorkflowId;
    const JOURNAL: (&'static str, &'static str) = (ENTITY_TYPE, DELETED);

    fn key(request: &Deletion) -> WorkflowId {
        request.workflow_id
    }

    fn transition_id(request: &Deletion) -> TransitionId {
        request.id
    }

    fn entity(request: &Scoped<Deletion>) -> (&str, uuid::Uuid) {
        (request.namespace.as_str(), request.workflow_id.0)
    }

    fn not_found(request: &Scoped<Deletion>) -> Option<Error> {
        (!request.allow_missing).then(|| no_workflow(&request.namespace, request.workflow_id))
    }

    async fn delete(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<Deletion>>],
    ) -> QueryResult<Vec<Position>> {
        let deleted = Namespace::deleted();
        let statement = DeleteRows {
            namespace: column(round, |item| item.namespace.as_str()),
            deleted_namespace: column(round, |_| deleted.as_str()),
            correlation_id: column(round, |_| CorrelationId::generate()),
            id: column(round, |item| item.workflow_id),
            transition_id: column(round, |item| item.id),
            entity_type: column(round, |_| ENTITY_TYPE),
            to_state: column(round, |_| DELETED),
            transition_event: column(round, |_| DELETE_EVENT),
            token_id: column(round, |item| item.token_id),
        };
        statement.load(connection).await
    }
}
