//! Putting machines.
//!
//! Only the row of the type is locked, see [`super::entity_types`], from just before the check of
//! the entities' states until the commit. The check takes a few index lookups, however many
//! entities exist. Stranded entities are counted after the lock is released.

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::{FutureExt, future::BoxFuture};

use super::{MachineSql, entity_types, machine_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            statement::{batch_statement, statement},
        },
        planner::{lookup, same_namespace, unindexed_eq},
        schema::fsm_machines,
    },
    domain::{
        error::{Error, Resource, Result},
        id::MachineChangeId,
        namespace::Scoped,
        write_outcome::WriteOutcome,
    },
    services::fsm::model::{BuiltIn, Machine, NewMachine},
};

statement! {
    /// Finds out whether an entity is in a state that the machine lacks. Goes from state to
    /// state, by one index lookup each, and stops at the first such state.
    struct IsEntityStranded { namespace: String, entity_type: String, states: Vec<String>, }
    returns Bool, is_batch: true;
    "WITH RECURSIVE states AS (
        SELECT min(current_state) AS state FROM fsm_entities
         WHERE namespace = " {namespace: Text} " AND entity_type = " {entity_type: Text} "
        UNION ALL
        SELECT (SELECT min(current_state) FROM fsm_entities
                 WHERE namespace = " {namespace: Text} " AND entity_type = " {entity_type: Text} "
                   AND current_state > states.state)
          FROM states WHERE states.state = ANY (" {states: Array<Text>} ")
    )
    SELECT EXISTS (SELECT FROM states WHERE state <> ALL (" {states: Array<Text>} "))"
}

statement! {
    /// The same check for bridges. A namespace has few of them.
    struct IsBridgeStranded { namespace: String, states: Vec<String>, }
    returns Bool, is_batch: true;
    "SELECT EXISTS (SELECT FROM bridge_states WHERE namespace = " {namespace: Text}
    " AND current_fsm_state <> ALL (" {states: Array<Text>} "))"
}

statement! {
    /// Counts the entities in each state that the machine lacks, in the order of an index, see
    /// `ordered_eq!`.
    struct CountStrandedEntities { namespace: String, entity_type: String, states: Vec<String>, }
    returns (Text, BigInt), is_batch: true;
    "SELECT current_state, count(*) FROM fsm_entities
      WHERE namespace = ANY (ARRAY[" {namespace: Text} "])
        AND entity_type = " {entity_type: Text} "
        AND current_state <> ALL (" {states: Array<Text>} ")
      GROUP BY namespace, current_state ORDER BY namespace, current_state"
}

statement! {
    /// Counts the bridges in each state that the machine lacks.
    struct CountStrandedBridges { namespace: String, states: Vec<String>, }
    returns (Text, BigInt), is_batch: true;
    "SELECT current_fsm_state, count(*) FROM bridge_states
      WHERE namespace = " {namespace: Text}
    " AND current_fsm_state <> ALL (" {states: Array<Text>} ")
      GROUP BY current_fsm_state ORDER BY current_fsm_state"
}

batch_statement! {
    /// Reads the current machine, and the id of the call that put it.
    struct ReadCurrent<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
    }
    returns (MachineSql, Nullable<Uuid>);
    concat!(
        " SELECT ", machine_columns!(), ", m.change_id
            FROM item",
        lookup!("fsm_machines", "m", "m.namespace = item.namespace
             AND m.entity_type = item.entity_type ORDER BY m.version DESC")
    )
}

batch_statement! {
    /// Reads the version that a call put.
    struct FindPut<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        change_id: MachineChangeId => Uuid,
    }
    returns MachineSql;
    concat!(
        " SELECT ", machine_columns!(), "
            FROM item",
        lookup!("fsm_machines", "m", "m.change_id = item.change_id AND ", same_namespace!("m"), "
             AND ", unindexed_eq!("m.entity_type", "item.entity_type"))
    )
}

/// Puts machines. Idempotent by definition, and by the id of the call if a batch runs again.
pub struct PutMachines;

impl Operation for PutMachines {
    const NAME: &'static str = "PutMachines";

    type Item = Scoped<NewMachine>;
    type Answer = WriteOutcome<Machine>;
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
            for item in items {
                answers.push(Some(put(connection, item).await?));
            }
            Ok(answers)
        }
        .boxed()
    }

    fn item_error(_item: &Self::Item, error: DbError) -> Error {
        entity_types::change_error(error)
    }
}

/// The outcome of putting a machine under the lock.
enum Put {
    Done(WriteOutcome<Machine>),
    Refused(Error),
    Stranding,
}

async fn put(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Result<WriteOutcome<Machine>>> {
    // Nodes put their machine at every start, mostly an unchanged one, which needs no lock.
    if let Some(outcome) = unchanged(current(connection, new).await?, new) {
        return Ok(Ok(outcome));
    }
    let put = connection.transaction(async |connection| put_locked(connection, new).await);
    match put.await? {
        Put::Done(outcome) => Ok(Ok(outcome)),
        Put::Refused(error) => Ok(Err(error)),
        Put::Stranding => stranding(connection, new).await.map(Err),
    }
}

/// The current machine, and the id of the call that put it.
type Current = Option<(Machine, Option<MachineChangeId>)>;

/// Returns the outcome if the current machine has the definition that a call puts.
fn unchanged(current: Current, new: &NewMachine) -> Option<WriteOutcome<Machine>> {
    let (row, change_id) = current.filter(|(it, _)| it.definition_digest == new.digest)?;
    // An earlier try of this very call stored the row, and its answer was lost.
    let created = change_id == Some(new.id);
    Some(WriteOutcome { row, created })
}

async fn put_locked(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Put> {
    let deleted = entity_types::lock(connection, &new.namespace, &new.entity_type).await?;
    let current = current(connection, new).await?;
    let version = current.as_ref().map_or(0, |(machine, _)| machine.version);
    if let Some(outcome) = unchanged(current, new) {
        return Ok(Put::Done(outcome));
    }
    // A later call replaced what an earlier try of this one stored.
    if let Some(row) = earlier_put(connection, new).await? {
        return Ok(Put::Done(WriteOutcome { row, created: true }));
    }
    if let Some(expected) = new.expected_version.filter(|it| *it != version) {
        return Ok(Put::Refused(Error::RevisionChanged {
            resource: Resource::Machine,
            id: new.entity_type.clone(),
            expected: expected.into(),
            current: version.into(),
        }));
    }
    if !new.allow_stranded && is_stranded(connection, new).await? {
        return Ok(Put::Stranding);
    }
    // A version that a caller remembers of a deleted machine must not be that of another one.
    insert(connection, new, version.max(deleted) + 1)
        .await
        .map(Put::Done)
}

fn is_of_bridges(new: &NewMachine) -> bool {
    BuiltIn::from_name(&new.entity_type) == Some(BuiltIn::Bridge)
}

async fn is_stranded(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<bool> {
    let namespace = new.namespace.to_string();
    let states = states(new);
    if is_of_bridges(new) {
        let check = IsBridgeStranded { namespace, states };
        return check.get_result(connection).await;
    }
    let check = IsEntityStranded {
        namespace,
        entity_type: new.entity_type.clone(),
        states,
    };
    check.get_result(connection).await
}

fn states(new: &NewMachine) -> Vec<String> {
    let states = new.definition.states().into_iter();
    states.map(|state| state.to_string()).collect()
}

async fn current(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Current> {
    let read = ReadCurrent {
        namespace: vec![new.namespace.as_str()],
        entity_type: vec![&new.entity_type],
    };
    read.get_result(connection).await.optional()
}

async fn earlier_put(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Option<Machine>> {
    let find = FindPut {
        namespace: vec![new.namespace.as_str()],
        entity_type: vec![&new.entity_type],
        change_id: vec![new.id],
    };
    find.get_result(connection).await.optional()
}

async fn insert(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
    version: i32,
) -> QueryResult<WriteOutcome<Machine>> {
    let row = diesel::insert_into(fsm_machines::table)
        .values((
            fsm_machines::namespace.eq(&new.namespace),
            fsm_machines::entity_type.eq(&new.entity_type),
            fsm_machines::version.eq(version),
            fsm_machines::definition.eq(&new.definition),
            fsm_machines::definition_digest.eq(new.digest),
            fsm_machines::change_id.eq(new.id),
        ))
        .returning(Machine::as_returning())
        .get_result(connection)
        .await?;
    Ok(WriteOutcome { row, created: true })
}

/// Returns the error that lists the stranded entities.
async fn stranding(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Error> {
    let (namespace, states) = (new.namespace.to_string(), states(new));
    let entity_type = new.entity_type.clone();
    let states: Vec<(String, i64)> = if is_of_bridges(new) {
        let count = CountStrandedBridges { namespace, states };
        count.load(connection).await?
    } else {
        let count = CountStrandedEntities {
            namespace,
            entity_type,
            states,
        };
        count.load(connection).await?
    };
    Ok(Error::EntitiesStranded {
        entity_type: new.entity_type.clone(),
        count: states.iter().map(|(_, count)| count).sum(),
        states,
    })
}
