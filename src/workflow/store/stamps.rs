//! Appending stamps.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{StampSql, no_workflow, replay, stamp_columns};
use crate::{
    db::{
        DbError,
        batch::Operation,
        rounds::{Placed, in_order, rounds},
        statement::{batch_statement, column},
    },
    digest::RequestDigest,
    error::{Error, Resource, Result},
    id::{StampId, WorkflowId},
    json::JsonObject,
    namespace::Scoped,
    workflow::model::{NewStamp, Recorded, Stamp},
};

batch_statement! {
    /// Inserts those stamps whose workflow exists, or that have none, and whose id is free.
    struct InsertStamps<'a> {
        id: StampId => Uuid,
        namespace: &'a str => Text,
        workflow_id: Option<WorkflowId> => Nullable<Uuid>,
        file_hash: &'a str => Text,
        stamp_data: &'a JsonObject => Jsonb,
        request_digest: RequestDigest => Bytea,
    }
    returns (Uuid, Timestamptz);
    " INSERT INTO metadata_stamps
          (id, namespace, workflow_id, file_hash, stamp_data, request_digest)
      SELECT id, namespace, workflow_id, file_hash, stamp_data, request_digest
        FROM item
       WHERE workflow_id IS NULL
          OR (SELECT true FROM workflow_executions w
               WHERE w.id = item.workflow_id AND w.namespace = item.namespace)
       ORDER BY workflow_id
          ON CONFLICT ON CONSTRAINT metadata_stamps_pkey DO NOTHING
      RETURNING id, created_at"
}

batch_statement! {
    /// Finds out why a stamp was not inserted.
    struct FindStamps<'a> {
        id: StampId => Uuid,
        namespace: &'a str => Text,
        workflow_id: Option<WorkflowId> => Nullable<Uuid>,
    }
    returns (Uuid, Bool, Nullable<(StampSql, Nullable<Bytea>)>);
    concat!(
        " SELECT item.id,
                 item.workflow_id IS NULL
                 OR EXISTS (SELECT FROM workflow_executions w
                          WHERE w.id = item.workflow_id AND w.namespace = item.namespace), ",
                 stamp_columns!(), ", m.request_digest
            FROM item
            LEFT JOIN LATERAL (
                 SELECT * FROM metadata_stamps m
                  WHERE m.id = item.id AND m.namespace = item.namespace LIMIT 1) m ON true"
    )
}

/// Appends stamps: the same id with the same content once.
pub struct RecordStamps;

impl Operation for RecordStamps {
    type Item = Scoped<NewStamp>;
    type Answer = Recorded<Stamp>;
    type Key = StampId;

    fn key(item: &Self::Item) -> StampId {
        item.id
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
            Some("metadata_stamps_workflow_id_fkey") => {
                no_workflow(item.workflow_id.unwrap_or_default())
            }
            _ => error.into(),
        }
    }
}

type Answers = Vec<(usize, Result<Recorded<Stamp>>)>;

async fn record(
    connection: &mut AsyncPgConnection,
    round: &[Placed<'_, Scoped<NewStamp>>],
    answers: &mut Answers,
) -> Result<(), DbError> {
    let inserted = insert(connection, round).await?;
    let inserted: HashMap<_, _> = inserted.into_iter().collect();
    let mut others = Vec::new();
    for (place, new) in round {
        match inserted.get(&new.id) {
            Some(created_at) => {
                let row = Stamp::stored(new, &new.namespace, *created_at);
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
    round: &[Placed<'_, Scoped<NewStamp>>],
) -> diesel::QueryResult<Vec<(StampId, DateTime<Utc>)>> {
    let statement = InsertStamps {
        id: column(round, |new| new.id),
        namespace: column(round, |new| new.namespace.as_str()),
        workflow_id: column(round, |new| new.workflow_id),
        file_hash: column(round, |new| new.file_hash.as_str()),
        stamp_data: column(round, |new| &new.stamp_data),
        request_digest: column(round, |new| new.request_digest),
        ..InsertStamps::default()
    };
    statement.load(connection).await
}

/// A stamp with the digest of the request that stored it.
type StoredStamp = (Stamp, Option<RequestDigest>);

async fn answer_others(
    connection: &mut AsyncPgConnection,
    others: &[Placed<'_, Scoped<NewStamp>>],
    answers: &mut Answers,
) -> Result<(), DbError> {
    let find = FindStamps {
        id: column(others, |new| new.id),
        namespace: column(others, |new| new.namespace.as_str()),
        workflow_id: column(others, |new| new.workflow_id),
        ..FindStamps::default()
    };
    let found: Vec<(StampId, bool, Option<StoredStamp>)> = find.load(connection).await?;
    let found = found
        .into_iter()
        .map(|(id, has_workflow, stored)| (id, (has_workflow, stored)));
    let mut found: HashMap<_, _> = found.collect();
    for (place, new) in others {
        let answer = match found.remove(&new.id) {
            Some((true, stored)) => replay(stored, new.request_digest, new.is_id_chosen, || {
                id_conflict(new.id)
            }),
            _ => Err(no_workflow(new.workflow_id.unwrap_or_default())),
        };
        answers.push((*place, answer));
    }
    Ok(())
}

fn id_conflict(id: StampId) -> Error {
    Error::IdConflict {
        resource: Resource::Stamp,
        field: "id",
        name: id.to_string(),
    }
}
