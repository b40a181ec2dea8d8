//! Starting workflows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{WorkflowSql, workflow_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Operation,
            rounds::{Indexed, in_order, rounds},
            statement::{batch_statement, column},
        },
        planner::{in_set, lookup, same_namespace},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{CorrelationId, TokenId, TransitionId, WorkflowId},
        journal::START_EVENT,
        json::JsonObject,
        namespace::Scoped,
        write_outcome::{WriteOutcome, resolve_duplicate},
    },
    services::workflow::model::{ENTITY_TYPE, NewWorkflow, State, Workflow},
};

batch_statement! {
    /// Inserts the workflows whose ids are free, each with its first row of the journal.
    struct InsertWorkflows<'a> {
        id: WorkflowId => Uuid,
        correlation_id: CorrelationId => Uuid,
        workflow_type: &'a str => Text,
        current_state: State => Text,
        namespace: &'a str => Text,
        started_at: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        metadata: &'a JsonObject => Jsonb,
        request_digest: RequestDigest => Bytea,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns (Uuid, Timestamptz, Timestamptz);
    // Inserts in the order of the key, so that two replicas with the same keys wait for each
    // other instead of deadlocking.
    concat!(", inserted AS (
        INSERT INTO workflow_executions
            (id, correlation_id, workflow_type, current_state, namespace, started_at, metadata,
             request_digest)
        SELECT id, correlation_id, workflow_type, current_state, namespace,
               coalesce(started_at, now()), metadata, request_digest
          FROM item
         ORDER BY correlation_id
            ON CONFLICT DO NOTHING
        RETURNING id, started_at, created_at
    ), journaled AS (
        INSERT INTO fsm_transitions
            (id, entity_id, entity_type, to_state, transition_event, namespace, token_id)
        SELECT item.transition_id, item.id, item.entity_type, item.current_state,
               item.transition_event, item.namespace, item.token_id
          FROM item
         WHERE ", in_set!("item.id", "SELECT id FROM inserted"), "
    )
    SELECT id, started_at, created_at FROM inserted")
}

batch_statement! {
    /// Finds by correlation_id the workflows that the same request started, with the id that
    /// the caller chose, if any. Rows of other requests are not read, so the work for a taken
    /// id does not depend on which tenant took it.
    struct FindWorkflows<'a> {
        namespace: &'a str => Text,
        correlation_id: CorrelationId => Uuid,
        chosen_id: Option<WorkflowId> => Nullable<Uuid>,
        request_digest: RequestDigest => Bytea,
    }
    returns WorkflowSql;
    concat!(
        " SELECT ", workflow_columns!(), "
            FROM item",
        lookup!("workflow_executions", "w",
            "w.correlation_id = item.correlation_id AND ", same_namespace!("w"), "
             AND w.request_digest = item.request_digest
             AND (item.chosen_id IS NULL OR w.id = item.chosen_id)")
    )
}

/// Starts workflows. Idempotent by correlation_id.
pub struct StartWorkflows;

impl Operation for StartWorkflows {
    const NAME: &'static str = "StartWorkflows";

    type Item = Scoped<NewWorkflow>;
    type Answer = WriteOutcome<Workflow>;
    type Key = CorrelationId;

    fn key(item: &Self::Item) -> CorrelationId {
        item.correlation_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for round in rounds(items, |item| [item.correlation_id.0, item.id.0]) {
                start(connection, &round, &mut answers).await?;
            }
            Ok(in_order(answers))
        })
    }
}

type Answers = Vec<(usize, Result<WriteOutcome<Workflow>>)>;

async fn start(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<NewWorkflow>>],
    answers: &mut Answers,
) -> Result<(), DbError> {
    let inserted = insert(connection, round).await?;
    let mut inserted: HashMap<_, _> = inserted.into_iter().map(|row| (row.0, row)).collect();
    let mut taken = Vec::new();
    for (index, new) in round {
        match inserted.remove(&new.id) {
            Some((_, started_at, created_at)) => {
                let row = stored(new, started_at, created_at);
                answers.push((*index, Ok(WriteOutcome { row, created: true })));
            }
            None => taken.push((*index, *new)),
        }
    }
    if !taken.is_empty() {
        answer_taken(connection, &taken, answers).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<NewWorkflow>>],
) -> diesel::QueryResult<Vec<(WorkflowId, DateTime<Utc>, DateTime<Utc>)>> {
    let statement = InsertWorkflows {
        id: column(round, |new| new.id),
        correlation_id: column(round, |new| new.correlation_id),
        workflow_type: column(round, |new| new.workflow_type.as_str()),
        current_state: column(round, |new| new.current_state),
        namespace: column(round, |new| new.namespace.as_str()),
        started_at: column(round, |new| new.started_at),
        metadata: column(round, |new| &new.metadata),
        request_digest: column(round, |new| new.request_digest),
        transition_id: column(round, |_| TransitionId::generate()),
        entity_type: column(round, |_| ENTITY_TYPE),
        transition_event: column(round, |_| START_EVENT),
        token_id: column(round, |new| new.token_id),
    };
    statement.load(connection).await
}

/// Answers the items whose correlation_id or id is taken: by an earlier try of the same
/// request, or by another request of any tenant.
async fn answer_taken(
    connection: &mut AsyncPgConnection,
    taken: &[Indexed<'_, Scoped<NewWorkflow>>],
    answers: &mut Answers,
) -> Result<(), DbError> {
    let find = FindWorkflows {
        namespace: column(taken, |new| new.namespace.as_str()),
        correlation_id: column(taken, |new| new.correlation_id),
        chosen_id: column(taken, |new| new.is_id_chosen.then_some(new.id)),
        request_digest: column(taken, |new| new.request_digest),
    };
    let found: Vec<Workflow> = find.load(connection).await?;
    let found = found.into_iter().map(|row| (row.correlation_id, row));
    let mut found: HashMap<_, _> = found.collect();
    for (index, new) in taken {
        let same = found.remove(&new.correlation_id);
        // The service made the id for this very call, so an earlier try of it stored the row.
        let is_ours = same.as_ref().is_some_and(|row| row.id == new.id) && !new.is_id_chosen;
        let answer = resolve_duplicate(same, !is_ours, || Error::IdConflict {
            resource: Resource::Workflow,
            field: "correlation_id",
            name: new.correlation_id.to_string(),
        });
        answers.push((*index, answer));
    }
    Ok(())
}

fn stored(
    new: &Scoped<NewWorkflow>,
    started_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
) -> Workflow {
    Workflow {
        id: new.id,
        correlation_id: new.correlation_id,
        workflow_type: new.workflow_type.clone(),
        current_state: new.current_state,
        namespace: new.namespace.to_string(),
        started_at,
        completed_at: None,
        execution_time_ms: None,
        error_message: None,
        metadata: new.metadata.clone(),
        created_at,
        updated_at: created_at,
    }
}
