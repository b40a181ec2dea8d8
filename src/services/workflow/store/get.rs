//! Reading workflows by key ("Common Query 1").

use std::sync::Arc;

use diesel::{
    QueryResult,
    deserialize::{self, Queryable},
    pg::Pg,
    sql_types::{Array, BigInt, Bool, Nullable, Record, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::{StampSql, StepSql, WorkflowSql, stamp_columns, step_columns, workflow_columns};
use crate::{
    db::{
        batch::{
            lookup::{Found, Lookup, LookupOperation},
            statement::batch_statement,
        },
        planner::{lateral, lookup, ordered_eq, same_namespace},
    },
    domain::{
        error::{Error, Resource, Result},
        id::{CorrelationId, WorkflowId},
        limits::MAX_RESPONSE,
        namespace::Scoped,
        page::{self, truncate_to_bytes},
    },
    services::workflow::model::{
        Stamp, Step, Workflow, WorkflowDetails, WorkflowKey, WorkflowQuery,
    },
};

/// The number of rows that fill a page of 2 MiB, of `$rows`: the ids of the first rows of a
/// table, and the sum of their sizes. The size of a compressed document is not known, and
/// then the sum exceeds a page. Only in that case documents are decompressed, one by one until
/// the page is full.
macro_rules! filling {
    ($rows:literal, $table:literal, $alias:literal, $size:expr) => {
        concat!(
            "CASE WHEN ",
            $rows,
            ".bytes <= 2097152 THEN 1000 ELSE (
                WITH RECURSIVE page AS (
                    SELECT 0 AS number, 0::bigint AS bytes
                     UNION ALL
                    SELECT page.number + 1, page.bytes + (
                               SELECT ",
            $size,
            " FROM ",
            $table,
            " ",
            $alias,
            "
                                WHERE ",
            $alias,
            ".id = ",
            $rows,
            ".ids[page.number + 1]
                                  AND ",
            same_namespace!($alias, "w"),
            ")
                      FROM page
                     WHERE page.bytes <= 2097152 AND page.number < least(",
            $rows,
            ".total, 1000)
                )
                SELECT max(number) FROM page) END"
        )
    };
}

/// The size of a document as it is stored, if it is not compressed; else more than a page.
macro_rules! stored_size {
    ($document:literal) => {
        concat!(
            "CASE WHEN pg_column_compression(",
            $document,
            ") IS NULL
                  THEN pg_column_size(",
            $document,
            ") ELSE 2097153 END"
        )
    };
}

batch_statement! {
    /// Reads workflows, each with the first steps and stamps that fill a page, and at most
    /// 1000. Counts them up to 1001, to tell whether there are more.
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
            FROM item",
        lookup!("workflow_executions", "w",
            "w.id = coalesce(item.id,
                             (SELECT k.id FROM workflow_executions k
                               WHERE k.correlation_id = item.correlation_id
                                 AND ", same_namespace!("k"), "))
             AND ", same_namespace!("w")),
        lateral!("steps",
            "SELECT count(*) AS total, coalesce(sum(s.bytes), 0) AS bytes, array_agg(s.id) AS ids
               FROM (SELECT s.id, ", stored_size!("s.step_data"), "
                            + coalesce(octet_length(s.error_message), 0) AS bytes
                       FROM workflow_steps s
                      WHERE s.workflow_id = w.id AND ", same_namespace!("s", "w"), "
                      ORDER BY s.step_order, s.id LIMIT 1001) s"),
        lateral!("first_steps",
            "SELECT array_agg(ROW(", step_columns!(), ")) AS rows
               FROM (SELECT * FROM workflow_steps s
                      WHERE s.workflow_id = w.id AND ", same_namespace!("s", "w"), "
                      ORDER BY s.step_order, s.id
                      LIMIT ", filling!("steps", "workflow_steps", "p",
                          "octet_length(p.step_data::text) + coalesce(octet_length(p.error_message), 0)"), ") s"),
        lateral!("stamps",
            "SELECT count(*) AS total, coalesce(sum(m.bytes), 0) AS bytes, array_agg(m.id) AS ids
               FROM (SELECT m.id, ", stored_size!("m.stamp_data"), " AS bytes
                       FROM metadata_stamps m
                      WHERE item.include_stamps
                        AND ", ordered_eq!("m.workflow_id", "w.id"), "
                        AND ", same_namespace!("m", "w"), "
                      ORDER BY m.workflow_id, m.created_at DESC, m.id DESC LIMIT 1001) m"),
        lateral!("first_stamps",
            "SELECT array_agg(ROW(", stamp_columns!(), ")) AS rows
               FROM (SELECT * FROM metadata_stamps m
                      WHERE item.include_stamps
                        AND ", ordered_eq!("m.workflow_id", "w.id"), "
                        AND ", same_namespace!("m", "w"), "
                      ORDER BY m.workflow_id, m.created_at DESC, m.id DESC
                      LIMIT ", filling!("stamps", "metadata_stamps", "p",
                          "octet_length(p.stamp_data::text)"), ") m")
    )
}

/// A row of [`ReadWorkflows`]: the ordinality of its item, the workflow, and for steps and
/// stamps their count, up to 1001, and the first ones.
type Row = (
    i64,
    Workflow,
    i64,
    Option<Vec<<Step as Queryable<StepSql, Pg>>::Row>>,
    i64,
    Option<Vec<<Stamp as Queryable<StampSql, Pg>>::Row>>,
);

/// Reads workflows, with their steps and stamps.
pub type GetWorkflows = LookupOperation<WorkflowLookup>;

/// The implementation of [`GetWorkflows`].
pub struct WorkflowLookup;

impl Lookup for WorkflowLookup {
    const NAME: &'static str = "GetWorkflows";
    type Query = WorkflowQuery;
    type Key<'a> = (&'a str, WorkflowKey, bool);
    type Row = Arc<WorkflowDetails>;

    fn key(request: &Scoped<WorkflowQuery>) -> Self::Key<'_> {
        (
            request.namespace.as_str(),
            request.key,
            request.include_stamps,
        )
    }

    fn if_missing(request: &Scoped<WorkflowQuery>) -> Result<Arc<WorkflowDetails>> {
        let (field, name) = match request.key {
            WorkflowKey::Id(id) => ("id", id.to_string()),
            WorkflowKey::CorrelationId(id) => ("correlation_id", id.to_string()),
        };
        Err(Error::NotFound {
            resource: Resource::Workflow,
            field,
            name,
            namespace: Some(request.namespace.clone()),
        })
    }

    fn size(details: &Arc<WorkflowDetails>) -> usize {
        details.size()
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<WorkflowQuery>],
    ) -> QueryResult<Found<Arc<WorkflowDetails>>> {
        let all = requests.iter();
        let statement = ReadWorkflows {
            namespace: all.clone().map(|it| it.namespace.as_str()).collect(),
            id: all.clone().map(|it| it.key.id()).collect(),
            correlation_id: all.clone().map(|it| it.key.correlation_id()).collect(),
            include_stamps: all.map(|it| it.include_stamps).collect(),
        };
        let rows = statement.load_stream::<Row>(connection).await?;
        let rows = rows.and_then(async |row| {
            let details = (row.0, details(row));
            match details {
                (ordinality, Ok(details)) => Ok((ordinality, Arc::new(details))),
                (_, Err(error)) => Err(diesel::result::Error::DeserializationError(error)),
            }
        });
        Found::collect(rows, Self::size).await
    }
}

fn details(row: Row) -> deserialize::Result<WorkflowDetails> {
    let (_, workflow, step_total, steps, stamp_total, stamps) = row;
    let steps = steps.into_iter().flatten().map(build::<StepSql, Step>);
    let mut steps = steps.collect::<deserialize::Result<Vec<_>>>()?;
    let stamps = stamps.into_iter().flatten().map(build::<StampSql, Stamp>);
    let mut stamps = stamps.collect::<deserialize::Result<Vec<_>>>()?;
    // Steps that do not fit beside the workflow are on the next page.
    let left = MAX_RESPONSE.saturating_sub(workflow.size());
    let left = truncate_to_bytes(&mut steps, left.min(page::MAX_BYTES));
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
