//! Recording stamps.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    sql_types::{Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{StampSql, no_workflow, stamp_columns};
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
        id::{StampId, WorkflowId},
        json::JsonObject,
        namespace::Scoped,
    },
    services::workflow::model::{NewStamp, Stamp},
};

batch_statement! {
    /// Inserts the stamps without a workflow, or whose workflow exists, and whose id is free.
    struct InsertStamps<'a> {
        id: StampId => Uuid,
        namespace: &'a str => Text,
        workflow_id: Option<WorkflowId> => Nullable<Uuid>,
        file_hash: &'a str => Text,
        stamp_data: &'a JsonObject => Jsonb,
        request_digest: RequestDigest => Bytea,
    }
    returns (Uuid, Timestamptz);
    concat!(
      " INSERT INTO metadata_stamps
          (id, namespace, workflow_id, file_hash, stamp_data, request_digest)
      SELECT id, namespace, workflow_id, file_hash, stamp_data, request_digest
        FROM item
       WHERE workflow_id IS NULL
          OR ", row_exists!("workflow_executions", "w",
                  "w.id = item.workflow_id AND ", same_namespace!("w")), "
       ORDER BY workflow_id
          ON CONFLICT ON CONSTRAINT metadata_stamps_pkey DO NOTHING
      RETURNING id, created_at"
    )
}

batch_statement! {
    /// Finds out why a stamp was not inserted, see [`NotInserted`].
    struct FindStamps<'a> {
        id: StampId => Uuid,
        namespace: &'a str => Text,
        workflow_id: Option<WorkflowId> => Nullable<Uuid>,
        request_digest: RequestDigest => Bytea,
    }
    returns (Uuid, Bool, Bool, Nullable<StampSql>);
    concat!(
        " SELECT item.id,
                 item.workflow_id IS NULL OR coalesce(", row_exists!("workflow_executions", "w",
                     "w.id = item.workflow_id AND ", same_namespace!("w")), ", false),
                 taken.id IS NOT NULL, ", stamp_columns!(), "
            FROM item", taken!("metadata_stamps", "m")
    )
}

/// Records stamps. Idempotent by id.
pub type RecordStamps = InsertOnceOperation<StampInsert>;

/// The implementation of [`RecordStamps`].
pub struct StampInsert;

impl InsertOnce for StampInsert {
    const NAME: &'static str = "RecordStamps";
    type New = NewStamp;
    type Row = Stamp;
    type Id = StampId;
    type Key = StampId;
    const PARENT_KEY: &str = "metadata_stamps_workflow_id_fkey";

    fn key(new: &NewStamp) -> StampId {
        new.id
    }

    fn identity(new: &NewStamp) -> (StampId, bool) {
        (new.id, new.is_id_chosen)
    }

    fn document_bytes(new: &NewStamp) -> usize {
        new.stamp_data.wire_len()
    }

    fn stored(new: &Scoped<NewStamp>, created_at: DateTime<Utc>) -> Stamp {
        Stamp::stored(new, &new.namespace, created_at)
    }

    fn id_conflict(new: &NewStamp) -> Error {
        Error::IdConflict {
            resource: Resource::Stamp,
            field: "id",
            name: new.id.to_string(),
        }
    }

    fn parent_not_found(new: &Scoped<NewStamp>) -> Error {
        no_workflow(&new.namespace, new.workflow_id.unwrap_or_default())
    }

    async fn insert(
        connection: &mut AsyncPgConnection,
        round: &[Indexed<'_, Scoped<NewStamp>>],
    ) -> QueryResult<Vec<(StampId, DateTime<Utc>)>> {
        let statement = InsertStamps {
            id: column(round, |new| new.id),
            namespace: column(round, |new| new.namespace.as_str()),
            workflow_id: column(round, |new| new.workflow_id),
            file_hash: column(round, |new| new.file_hash.as_str()),
            stamp_data: column(round, |new| &new.stamp_data),
            request_digest: column(round, |new| new.request_digest),
        };
        statement.load(connection).await
    }

    async fn find(
        connection: &mut AsyncPgConnection,
        others: &[Indexed<'_, Scoped<NewStamp>>],
    ) -> QueryResult<Vec<NotInserted<StampId, Stamp>>> {
        let find = FindStamps {
            id: column(others, |new| new.id),
            namespace: column(others, |new| new.namespace.as_str()),
            workflow_id: column(others, |new| new.workflow_id),
            request_digest: column(others, |new| new.request_digest),
        };
        find.load(connection).await
    }
}
