//! Reading workflows by key: "Common Query 1", for many callers in one round trip.

use diesel::{
    deserialize::{self, Queryable},
    pg::Pg,
    sql_types::{Array, BigInt, Bool, Nullable, Record, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{StampSql, StepSql, WorkflowSql, stamp_columns, step_columns, workflow_columns};
use crate::{
    db::{
        DbError,
        batch::{Operation, statement::batch_statement},
    },
    domain::{
        error::{Error, Resource, Result},
        id::{CorrelationId, WorkflowId},
        namespace::Scoped,
        page::{self, truncate_to_bytes},
    },
    services::workflow::model::{
        Stamp, Step, Workflow, WorkflowDetails, WorkflowKey, WorkflowQuery,
    },
};

batch_statement! {
    /// Reads workflows, each with its first 1000 steps and stamps, or only with
    /// the first one where all together are more than 1 MiB. Counts them up to
    /// 1001, to tell whether there are more.
    struct ReadWorkflows<'a> {
        namespace: &'a str => Text,
        id: Option<WorkflowId> => Nullable<Uuid>,
        correlation_id: Option<CorrelationId> => Nullable<Uuid>,
        include_stamps: bool => Bool,
    }
    returns (
        BigInt,
        WorkflowSql,
        BigInt,
        Nullable<Array<Record<StepSql>>>,
        BigInt,
        Nullable<Array<Record<StampSql>>>,
    );
    concat!(
        " SELECT item.ordinality, ", workflow_columns!(), ",
                 steps.total, first_steps.rows, stamps.total, first_stamps.rows
            FROM item
            CROSS JOIN LATERAL (
                 SELECT * FROM workflow_executions w
                  WHERE w.id = coalesce(item.id,
                            (SELECT k.id FROM workflow_executions k
                              WHERE k.correlation_id = item.correlation_id
                                AND k.namespace IS NOT DISTINCT FROM item.namespace))
                    AND w.namespace IS NOT DISTINCT FROM item.namespace
                  LIMIT 1) w
            CROSS JOIN LATERAL (
                 SELECT count(*) AS total,
                        sum(octet_length(s.step_data::text) + coalesce(octet_length(s.error_message), 0)) AS bytes
                   FROM (SELECT s.step_data, s.error_message FROM workflow_steps s
                          WHERE s.workflow_id = w.id AND s.namespace IS NOT DISTINCT FROM w.namespace
                          ORDER BY s.step_order, s.id LIMIT 1001) s) steps
            CROSS JOIN LATERAL (
                 SELECT array_agg(ROW(", step_columns!(), ")) AS rows
                   FROM (SELECT * FROM workflow_steps s
                          WHERE s.workflow_id = w.id AND s.namespace IS NOT DISTINCT FROM w.namespace
                          ORDER BY s.step_order, s.id
                          LIMIT CASE WHEN steps.bytes > 1048576 THEN 1 ELSE 1000 END) s) first_steps
            CROSS JOIN LATERAL (
                 SELECT count(*) AS total, sum(octet_length(m.stamp_data::text)) AS bytes
                   FROM (SELECT m.stamp_data FROM metadata_stamps m
                          WHERE item.include_stamps
                            AND m.workflow_id = w.id AND m.namespace IS NOT DISTINCT FROM w.namespace
                          ORDER BY m.created_at DESC, m.id DESC LIMIT 1001) m) stamps
            CROSS JOIN LATERAL (
                 SELECT array_agg(ROW(", stamp_columns!(), ")) AS rows
                   FROM (SELECT * FROM metadata_stamps m
                          WHERE item.include_stamps
                            AND m.workflow_id = w.id AND m.namespace IS NOT DISTINCT FROM w.namespace
                          ORDER BY m.created_at DESC, m.id DESC
                          LIMIT CASE WHEN stamps.bytes > 1048576 THEN 1 ELSE 1000 END) m) first_stamps"
    )
}

/// A row of [`ReadWorkflows`]: its item, the workflow, and of steps and stamps
/// how many there are, up to 1001, and the first ones.
type Row = (
    i64,
    Workflow,
    i64,
    Option<Vec<<Step as Queryable<StepSql, Pg>>::Row>>,
    i64,
    Option<Vec<<Stamp as Queryable<StampSql, Pg>>::Row>>,
);

/// Reads workflows with what belongs to them.
pub struct GetWorkflows;

impl Operation for GetWorkflows {
    const NAME: &'static str = "GetWorkflows";

    type Item = Scoped<WorkflowQuery>;
    type Answer = WorkflowDetails;
    type Key = uuid::Uuid;

    fn key(item: &Self::Item) -> uuid::Uuid {
        match item.key {
            WorkflowKey::Id(id) => id.0,
            WorkflowKey::CorrelationId(id) => id.0,
        }
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        Box::pin(async move {
            let rows: Vec<Row> = read(items).load(connection).await?;
            let mut answers: Vec<_> = items.iter().map(|item| Err(not_found(item.key))).collect();
            for row in rows {
                let place = usize::try_from(row.0 - 1).ok();
                if let Some(answer) = place.and_then(|place| answers.get_mut(place)) {
                    *answer =
                        Ok(details(row).map_err(diesel::result::Error::DeserializationError)?);
                }
            }
            Ok(answers)
        })
    }
}

fn read<'a>(items: &[&'a Scoped<WorkflowQuery>]) -> ReadWorkflows<'a> {
    let items = items.iter();
    ReadWorkflows {
        namespace: items.clone().map(|item| item.namespace.as_str()).collect(),
        id: items.clone().map(|item| item.key.id()).collect(),
        correlation_id: items
            .clone()
            .map(|item| item.key.correlation_id())
            .collect(),
        include_stamps: items.map(|item| item.include_stamps).collect(),
        ..ReadWorkflows::default()
    }
}

fn details(row: Row) -> deserialize::Result<WorkflowDetails> {
    let (_, workflow, step_total, steps, stamp_total, stamps) = row;
    let steps = steps.into_iter().flatten().map(build::<StepSql, Step>);
    let mut steps = steps.collect::<deserialize::Result<Vec<_>>>()?;
    let stamps = stamps.into_iter().flatten().map(build::<StampSql, Stamp>);
    let mut stamps = stamps.collect::<deserialize::Result<Vec<_>>>()?;
    let left = truncate_to_bytes(&mut steps, page::MAX_BYTES);
    truncate_to_bytes(&mut stamps, left);
    Ok(WorkflowDetails {
        has_more_steps: (steps.len() as i64) < step_total,
        has_more_stamps: (stamps.len() as i64) < stamp_total,
        workflow,
        steps,
        stamps,
    })
}

fn build<ST, T: Queryable<ST, Pg>>(record: T::Row) -> deserialize::Result<T> {
    T::build(record)
}

fn not_found(key: WorkflowKey) -> Error {
    let (field, name) = match key {
        WorkflowKey::Id(id) => ("id", id.to_string()),
        WorkflowKey::CorrelationId(id) => ("correlation_id", id.to_string()),
    };
    Error::NotFound {
        resource: Resource::Workflow,
        field,
        name,
    }
}
