//! The lock of a machine: one row for each entity type that has a machine or entities.
//!
//! A new version must not strand an entity that changes its state at the same moment. A batch of
//! moves locks the rows of its types for sharing, in the statement that writes. PutMachine
//! changes the row: it waits until the moves in progress are committed, checks the states of
//! the entities, and commits. A batch that comes meanwhile waits for the row, sees that it
//! has changed, writes nothing and decides again. Types do not wait for each other.
//!
//! Locks of a row are not fair: while moves share it, others join them, and a put could wait for
//! ever. So both first take the advisory lock of the type, moves for sharing. PostgreSQL grants
//! advisory locks in the order of the requests. Moves of an earlier version do not take it; the
//! row still protects against them.

use std::sync::Arc;

use diesel::sql_types::{Integer, Nullable, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::{
    db::{DbError, batch::statement::statement},
    domain::{error::Error, id::MachineChangeId, namespace::Namespace},
};

/// Bounds each wait for moves in progress, which end within milliseconds. Other calls of the
/// batch, and moves of the type, wait behind this one. It is not `lock_timeout`, because that
/// bounds the wait for each lock, and moves of an earlier version may get theirs in between.
const BOUND_WAIT: &str = "SET LOCAL statement_timeout = '2s'";

/// The common table expression `outdated`: whether a machine by which items were decided has
/// been replaced. Locks the types of the items, so that none is replaced before the commit.
/// Adds the rows of types without one, in their order, so that two batches do not deadlock.
macro_rules! outdated_machines {
    () => {
        concat!(
            "checked AS MATERIALIZED (
                SELECT item.namespace, item.entity_type, seen.revision,
                       pg_advisory_xact_lock_shared(
                           hashtextextended(item.namespace || ' ' || item.entity_type, 0))
                  FROM item",
            $crate::db::planner::left_lookup!(
                "fsm_entity_types",
                "seen",
                "seen.namespace = item.namespace AND seen.entity_type = item.entity_type"
            ),
            " WHERE item.checks_machine
                   AND item.machine_digest IS NOT DISTINCT FROM (
                       SELECT m.definition_digest FROM fsm_machines m
                        WHERE m.namespace = item.namespace AND m.entity_type = item.entity_type
                        ORDER BY m.version DESC LIMIT 1)
                 -- The order of the locks, which PostgreSQL takes after it has sorted.
                 ORDER BY item.namespace, item.entity_type
            ), locked AS MATERIALIZED (
                -- The lock waits for a change in progress, and then reads the changed row.
                SELECT 1 FROM checked",
            $crate::db::planner::lateral!(
                "latest",
                "SELECT t.revision FROM fsm_entity_types t
                  WHERE t.namespace = checked.namespace AND t.entity_type = checked.entity_type
                    FOR SHARE"
            ),
            " WHERE latest.revision = checked.revision
            ), added AS (
                INSERT INTO fsm_entity_types (namespace, entity_type)
                SELECT namespace, entity_type FROM checked
                 WHERE revision IS NULL ORDER BY namespace, entity_type
                    ON CONFLICT ON CONSTRAINT fsm_entity_types_pkey DO NOTHING
                RETURNING 1
            ), outdated AS MATERIALIZED (
                SELECT (SELECT count(*) FROM item WHERE item.checks_machine)
                     > (SELECT count(*) FROM locked) + (SELECT count(*) FROM added) AS is_outdated
            )"
        )
    };
}

pub(crate) use outdated_machines;

statement! {
    /// Takes the advisory lock of a type: waits until the moves in progress are committed, and
    /// moves that come meanwhile wait behind it. The key is that of `outdated_machines!`.
    struct TakeTurn { namespace: String, entity_type: String, }
    returns (), is_batch: true;
    "SELECT pg_advisory_xact_lock(hashtextextended("
    {namespace: Text} " || ' ' || " {entity_type: Text} ", 0))"
}

statement! {
    /// Changes the row of a type, or adds it. Returns the last version of a deleted machine.
    struct ChangeType { namespace: String, entity_type: String, }
    returns Integer, is_batch: true;
    "INSERT INTO fsm_entity_types AS t (namespace, entity_type)
     VALUES (" {namespace: Text} ", " {entity_type: Text} ")
         ON CONFLICT ON CONSTRAINT fsm_entity_types_pkey DO UPDATE SET revision = t.revision + 1
     RETURNING t.last_version"
}

statement! {
    /// Changes the row of a type, if it exists. Returns the id of the last deletion.
    struct ChangeExistingType { namespace: String, entity_type: String, }
    returns Nullable<Uuid>, is_batch: true;
    "UPDATE fsm_entity_types SET revision = revision + 1
      WHERE namespace = " {namespace: Text} " AND entity_type = " {entity_type: Text} "
     RETURNING deletion_id"
}

statement! {
    /// Notes a deletion, and the last version that it deletes.
    struct NoteDeletion {
        namespace: String,
        entity_type: String,
        deletion_id: MachineChangeId,
        last_version: i32,
    }
    returns (), is_batch: true;
    "INSERT INTO fsm_entity_types AS t (namespace, entity_type, deletion_id, last_version)
     VALUES (" {namespace: Text} ", " {entity_type: Text} ", " {deletion_id: Uuid} ", "
        {last_version: Integer} ")
         ON CONFLICT ON CONSTRAINT fsm_entity_types_pkey
         DO UPDATE SET revision = t.revision + 1, deletion_id = excluded.deletion_id,
                       last_version = excluded.last_version"
}

/// Converts the error of a change of a machine. Its wait for moves that never pause ends with a
/// timeout of the statement, see [`BOUND_WAIT`].
pub(super) fn change_error(error: DbError) -> Error {
    match error {
        DbError::StatementTimeout(_) => Error::Locked(Arc::new(error)),
        other => other.into(),
    }
}

async fn take_turn(
    connection: &mut AsyncPgConnection,
    namespace: &Namespace,
    entity_type: &str,
) -> diesel::QueryResult<()> {
    connection.batch_execute(BOUND_WAIT).await?;
    let turn = TakeTurn {
        namespace: namespace.to_string(),
        entity_type: entity_type.to_owned(),
    };
    turn.execute(connection).await.map(drop)
}

/// Locks a type until the end of the transaction. Waits for moves in progress. Returns the last
/// version of a machine of the type that was deleted, or 0.
pub(super) async fn lock(
    connection: &mut AsyncPgConnection,
    namespace: &Namespace,
    entity_type: &str,
) -> diesel::QueryResult<i32> {
    take_turn(connection, namespace, entity_type).await?;
    let change = ChangeType {
        namespace: namespace.to_string(),
        entity_type: entity_type.to_owned(),
    };
    change.get_result(connection).await
}

/// Locks a type, if it has a row. Returns the id of the call that last deleted its machine.
pub(super) async fn lock_existing(
    connection: &mut AsyncPgConnection,
    namespace: &Namespace,
    entity_type: &str,
) -> diesel::QueryResult<Option<MachineChangeId>> {
    take_turn(connection, namespace, entity_type).await?;
    let change = ChangeExistingType {
        namespace: namespace.to_string(),
        entity_type: entity_type.to_owned(),
    };
    let rows: Vec<Option<MachineChangeId>> = change.load(connection).await?;
    Ok(rows.into_iter().flatten().next())
}

/// Notes which call deleted the machine of a type, and its last version.
pub(super) async fn note_deletion(
    connection: &mut AsyncPgConnection,
    namespace: &Namespace,
    entity_type: &str,
    deletion_id: MachineChangeId,
    last_version: i32,
) -> diesel::QueryResult<()> {
    let note = NoteDeletion {
        namespace: namespace.to_string(),
        entity_type: entity_type.to_owned(),
        deletion_id,
        last_version,
    };
    note.execute(connection).await.map(drop)
}
