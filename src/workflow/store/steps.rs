//! Appending steps.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{StepSql, no_workflow, replay, step_columns};
use crate::{
    db::{
        DbError,
        batch::Operation,
        rounds::{Placed, in_order, rounds},
        statement::{batch_statement, column},
    },
    digest::RequestDigest,
    error::{Error, Resource, Result},
    id::{StepId, WorkflowId},
    json::JsonObject,
    namespace::Scoped,
    workflow::model::{NewStep, Recorded, Step, StepStatus},
};

batch_statement! {
    /// Inserts those steps whose workflow exists and whose id is free.
    struct InsertSteps<'a> {
        id: StepId => Uuid,
        namespace: &'a str => Text,
        workflow_id: WorkflowId => Uuid,
        step_name: &'a str => Text,
        step_order: i32 => Integer,
        status: StepStatus => Text,
        execution_time_ms: Option<i64> => Nullable<BigInt>,
        step_data: &'a JsonObject => Jsonb,
        error_message: Option<&'a str> => Nullable<Text>,
        request_digest: RequestDigest => Bytea,
    }
    returns (Uuid, Timestamptz);
    " INSERT INTO workflow_steps
          (id, namespace, workflow_id, step_name, step_order, status, execution_time_ms,
           step_data, error_message, request_digest)
      SELECT id, namespace, workflow_id, step_name, step_order, status, execution_time_ms,
             step_data, error_message, request_digest
        FROM item
       WHERE (SELECT true FROM workflow_executions w
               WHERE w.id = item.workflow_id AND w.namespace = item.namespace)
       ORDER BY workflow_id
          ON CONFLICT ON CONSTRAINT workflow_steps_pkey DO NOTHING
      RETURNING id, created_at"
}

batch_statement! {
    /// Finds out why a step was not inserted.
    struct FindSteps<'a> {
        id: StepId => Uuid,
        namespace: &'a str => Text,
        workflow_id: WorkflowId => Uuid,
    }
    returns (Uuid, Bool, Nullable<(StepSql, Nullable<Bytea>)>);
    concat!(
        " SELECT item.id,
                 EXISTS (SELECT FROM workflow_executions w
                          WHERE w.id = item.workflow_id AND w.namespace = item.namespace), ",
                 step_columns!(), ", s.request_digest
            FROM item
            LEFT JOIN LATERAL (
                 SELECT * FROM workflow_steps s
                  WHERE s.id = item.id AND s.namespace = item.namespace LIMIT 1) s ON true"
    )
}

/// Appends steps: the same id with the same content once.
pub struct RecordSteps;

impl Operation for RecordSteps {
    type Item = Scoped<NewStep>;
    type Answer = Recorded<Step>;
    type Key = WorkflowId;

    fn key(item: &Self::Item) -> WorkflowId {
        item.workflow_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for round in rounds(items, |item| [item.id]) {
                record(connection, &round, &mut answers).await?;
            }
            Ok(in_order(answers))
        })
    }

    /// The workflow was deleted between our looking and our writing.
    fn refusal(item: &Self::Item, error: DbError) -> Error {
        match error.constraint() {
            Some("workflow_steps_workflow_id_fkey") => no_workflow(item.workflow_id),
            _ => error.into(),
        }
    }
}

type Answers = Vec<(usize, Result<Recorded<Step>>)>;

async fn record(
    connection: &mut AsyncPgConnection,
    round: &[Placed<'_, Scoped<NewStep>>],
    answers: &mut Answers,
) -> Result<(), DbError> {
    let inserted = insert(connection, round).await?;
    let inserted: HashMap<_, _> = inserted.into_iter().collect();
    let mut others = Vec::new();
    for (place, new) in round {
        match inserted.get(&new.id) {
            Some(created_at) => {
                let row = Step::stored(new, &new.namespace, *created_at);
                answers.push((*place, Ok(Recorded { row, created: true })));
            }
            None => others.push((*place, *new)),
        }
    }
    if !others.is_empty() {
        answer_others(connection, &others, answers).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut AsyncPgConnection,
    round: &[Placed<'_, Scoped<NewStep>>],
) -> diesel::QueryResult<Vec<(StepId, DateTime<Utc>)>> {
    let statement = InsertSteps {
        id: column(round, |new| new.id),
        namespace: column(round, |new| new.namespace.as_str()),
        workflow_id: column(round, |new| new.workflow_id),
        step_name: column(round, |new| new.step_name.as_str()),
        step_order: column(round, |new| new.step_order),
        status: column(round, |new| new.status),
        execution_time_ms: column(round, |new| new.execution_time_ms),
        step_data: column(round, |new| &new.step_data),
        error_message: column(round, |new| new.error_message.as_deref()),
        request_digest: column(round, |new| new.request_digest),
        ..InsertSteps::default()
    };
    statement.load(connection).await
}

/// A step with the digest of the request that stored it.
type StoredStep = (Step, Option<RequestDigest>);

async fn answer_others(
    connection: &mut AsyncPgConnection,
    others: &[Placed<'_, Scoped<NewStep>>],
    answers: &mut Answers,
) -> Result<(), DbError> {
    let find = FindSteps {
        id: column(others, |new| new.id),
        namespace: column(others, |new| new.namespace.as_str()),
        workflow_id: column(others, |new| new.workflow_id),
        ..FindSteps::default()
    };
    let found: Vec<(StepId, bool, Option<StoredStep>)> = find.load(connection).await?;
    let found = found
        .into_iter()
        .map(|(id, has_workflow, stored)| (id, (has_workflow, stored)));
    let mut found: HashMap<_, _> = found.collect();
    for (place, new) in others {
        let answer = match found.remove(&new.id) {
            Some((true, stored)) => replay(stored, new.request_digest, new.is_id_chosen, || {
                id_conflict(new.id)
            }),
            _ => Err(no_workflow(new.workflow_id)),
        };
        answers.push((*place, answer));
    }
    Ok(())
}

fn id_conflict(id: StepId) -> Error {
    Error::IdConflict {
        resource: Resource::Step,
        field: "id",
        name: id.to_string(),
    }
}
