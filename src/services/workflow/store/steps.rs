//! Recording steps.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    sql_types::{BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{StepSql, no_workflow, step_columns};
use crate::{
    db::{
        batch::{
            insert_once::{InsertOnce, InsertOnceOperation, NotInserted, taken},
            rounds::Indexed,
            statement::{batch_statement, column},
        },
        planner::{row_exists, same_namespace},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Resource},
        id::{StepId, WorkflowId},
        json::JsonObject,
        namespace::Scoped,
    },
    services::workflow::model::{NewStep, Step, StepStatus},
};

batch_statement! {
    /// Inserts the steps whose workflow exists and whose id is free.
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
    concat!(
      " INSERT INTO workflow_steps
          (id, namespace, workflow_id, step_name, step_order, status, execution_time_ms,
           step_data, error_message, request_digest)
      SELECT id, namespace, workflow_id, step_name, step_order, status, execution_time_ms,
             step_data, error_message, request_digest
        FROM item
       WHERE ", row_exists!("workflow_executions", "w",
                  "w.id = item.workflow_id AND ", same_namespace!("w")), "
       ORDER BY workflow_id
          ON CONFLICT ON CONSTRAINT workflow_steps_pkey DO NOTHING
      RETURNING id, created_at"
    )
}

batch_statement! {
    /// Finds out why a step was not inserted, see [`NotInserted`].
    struct FindSteps<'a> {
        id: StepId => Uuid,
        namespace: &'a str => Text,
        workflow_id: WorkflowId => Uuid,
        request_digest: RequestDigest => Bytea,
    }
    returns (Uuid, Bool, Bool, Nullable<StepSql>);
    concat!(
        " SELECT item.id,
                 coalesce(", row_exists!("workflow_executions", "w",
                     "w.id = item.workflow_id AND ", same_namespace!("w")), ", false),
                 taken.id IS NOT NULL, ", step_columns!(), "
            FROM item", taken!("workflow_steps", "s")
    )
}

/// Records steps. Idempotent by id.
pub type RecordSteps = InsertOnceOperation<StepInsert>;

/// The implementation of [`RecordSteps`].
pub struct StepInsert;

impl InsertOnce for StepInsert {
    const NAME: &'static str = "RecordSteps";
    type New = NewStep;
    type Row = Step;
    type Id = StepId;
    type Key = WorkflowId;
    const PARENT_KEY: &str = "workflow_steps_workflow_id_fkey";

    fn key(new: &NewStep) -> WorkflowId {
        new.workflow_id
    }

    fn identity(new: &NewStep) -> (StepId, bool) {
        (new.id, new.is_id_chosen)
    }

    fn document_bytes(new: &NewStep) -> usize {
        new.step_data.wire_len()
    }

    fn stored(new: &Scoped<NewStep>, created_at: DateTime<Utc>) -> Step {
        Step::stored(new, &new.namespace, created_at)
    }

    fn id_conflict(new: &NewStep) -> Error {
        Error::IdConflict {
            resource: Resource::Step,
            field: "id",
            name: new.id.to_string(),
        }
    }

    fn parent_not_found(new: &Scoped<NewStep>) -> Error {
        no_workflow(&new.namespace, new.workflow_id)
    }

    async fn insert(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<NewStep>>],
    ) -> QueryResult<Vec<(StepId, DateTime<Utc>)>> {
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
        };
        statement.load(connection).await
    }

    async fn find(
        connection: &mut AsyncPgConnection,
        others: &[Indexed<'_, Scoped<NewStep>>],
    ) -> QueryResult<Vec<NotInserted<StepId, Step>>> {
        let find = FindSteps {
            id: column(others, |new| new.id),
            namespace: column(others, |new| new.namespace.as_str()),
            workflow_id: column(others, |new| new.workflow_id),
            request_digest: column(others, |new| new.request_digest),
        };
        find.load(connection).await
    }
}
