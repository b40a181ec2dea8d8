//! Deleting machines.

use std::collections::HashSet;

use diesel::{
    QueryResult,
    sql_types::{Integer, Nullable, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::{FutureExt, future::BoxFuture};

use super::{entity_types, machines::no_machine};
use crate::{
    db::{
        DbError,
        batch::{Answers, Operation, statement::statement},
    },
    domain::{
        error::{Error, Result},
        namespace::Scoped,
    },
    services::fsm::model::MachineDeletion,
};

statement! {
    /// Deletes all versions of a machine. Returns the last one, or NULL without a machine.
    struct DeleteMachine { namespace: String, entity_type: String, }
    returns Nullable<Integer>, is_batch: true;
    "WITH deleted AS (
        DELETE FROM fsm_machines WHERE namespace = " {namespace: Text} "
           AND entity_type = " {entity_type: Text} "
        RETURNING version
    )
    SELECT max(version) FROM deleted"
}

/// Deletes machines. The answer is whether the machine existed.
pub struct DeleteMachines;

impl Operation for DeleteMachines {
    const NAME: &'static str = "DeleteMachines";

    type Item = Scoped<MachineDeletion>;
    type Answer = bool;
    type Key = (String, String);

    fn key(item: &Self::Item) -> (String, String) {
        (item.namespace.to_string(), item.entity_type.clone())
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        async move {
            let mut answers = Vec::with_capacity(items.len());
            let mut seen = HashSet::new();
            // Deletes of machines are rare, so they run one by one.
            for item in items {
                // A second delete of a machine comes right after the first one. So the row of
                // the type has the id of the first if the batch runs again.
                let is_first = seen.insert(Self::key(item));
                answers.push(Some(match is_first && delete(connection, item).await? {
                    false if !item.allow_missing => {
                        Err(no_machine(&item.namespace, &item.entity_type))
                    }
                    is_deleted => Ok(is_deleted),
                }));
            }
            Ok(answers)
        }
        .boxed()
    }

    fn item_error(_item: &Self::Item, error: DbError) -> Error {
        entity_types::change_error(error)
    }
}

/// Deletes a machine. Returns whether this call did, be it by an earlier try whose answer was
/// lost.
async fn delete(
    connection: &mut AsyncPgConnection,
    item: &Scoped<MachineDeletion>,
) -> QueryResult<bool> {
    let (namespace, entity_type) = (&item.namespace, item.entity_type.as_str());
    let transaction = connection.transaction(async |connection| {
        let earlier = entity_types::lock_existing(connection, namespace, entity_type).await?;
        if earlier == Some(item.id) {
            return Ok(true);
        }
        let delete = DeleteMachine {
            namespace: namespace.to_string(),
            entity_type: entity_type.to_owned(),
        };
        let last: Option<i32> = delete.get_result(connection).await?;
        if let Some(last) = last {
            entity_types::note_deletion(connection, namespace, entity_type, item.id, last).await?;
        }
        Ok(last.is_some())
    });
    transaction.await
}
