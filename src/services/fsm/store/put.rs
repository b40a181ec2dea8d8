//! Putting machines.
//!
//! A new version must not strand an entity that moves at the same moment. So
//! while the states of entities are looked at, nobody moves, and nobody else puts:
//! the table of entities is locked for writers, from just before the look until
//! the commit. The look is a few steps along an index, however many entities there
//! are; counting those that would be stranded comes after the lock is gone. Who
//! decided by the old version before finds, when he writes, that it is not current
//! any more, and decides again.

use std::sync::Arc;

use diesel::{
    dsl::count_star,
    prelude::*,
    sql_types::{Array, Bool, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    db::{
        DbError,
        batch::Operation,
        schema::{bridge_states, fsm_entities, fsm_machines},
    },
    domain::{
        error::{Error, Resource, Result},
        namespace::Scoped,
        write_outcome::WriteOutcome,
    },
    services::fsm::model::{BuiltIn, Machine, NewMachine},
};

/// Locks out writers. Whoever holds the table for longer than this, such as a
/// VACUUM, is not waited for, because all writers would wait behind us.
const LOCK_ENTITIES: &str = "SET LOCAL lock_timeout = '2s';
     LOCK TABLE fsm_entities IN SHARE ROW EXCLUSIVE MODE";
const LOCK_BRIDGES: &str = "SET LOCAL lock_timeout = '2s';
     LOCK TABLE bridge_states IN SHARE ROW EXCLUSIVE MODE";

/// Whether an entity is in a state that is not kept. Goes from state to state, each
/// by one look into the index, and stops at the first that is not.
const IS_STRANDED: &str = "
    WITH RECURSIVE states AS (
        SELECT min(current_state) AS state FROM fsm_entities
         WHERE namespace = $1 AND entity_type = $2
        UNION ALL
        SELECT (SELECT min(current_state) FROM fsm_entities
                 WHERE namespace = $1 AND entity_type = $2 AND current_state > states.state)
          FROM states WHERE states.state = ANY ($3)
    )
    SELECT EXISTS (SELECT FROM states WHERE state <> ALL ($3)) AS is_stranded";

/// The same of bridges, of which a namespace has few.
const IS_BRIDGE_STRANDED: &str = "
    SELECT EXISTS (
        SELECT FROM bridge_states
         WHERE namespace = $1 AND $2 <> '' AND current_fsm_state <> ALL ($3)) AS is_stranded";

/// Puts machines: the same definition once.
pub struct PutMachines;

impl Operation for PutMachines {
    const NAME: &'static str = "PutMachines";

    type Item = Scoped<NewMachine>;
    type Answer = WriteOutcome<Machine>;
    type Key = (String, String);

    fn key(item: &Self::Item) -> (String, String) {
        (item.namespace.to_string(), item.entity_type.clone())
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        async move {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                answers.push(put(connection, item).await?);
            }
            Ok(answers)
        }
        .boxed()
    }

    /// It could not get the lock, again and again.
    fn refusal(_item: &Self::Item, error: DbError) -> Error {
        match error.is_transient() {
            true => Error::DatabaseUnavailable(Arc::new(error)),
            false => error.into(),
        }
    }
}

/// What came of a try to put a machine.
enum Put {
    Done(WriteOutcome<Machine>),
    Refused(Error),
    Stranding,
}

async fn put(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Result<WriteOutcome<Machine>>> {
    // Nodes put their machine whenever they start: mostly there is nothing to do,
    // and nobody has to be locked out for that.
    if let Some(row) = current(connection, new)
        .await?
        .filter(|it| is_same(it, new))
    {
        return Ok(Ok(WriteOutcome {
            row,
            created: false,
        }));
    }
    let put = connection.transaction(async |connection| put_locked(connection, new).await);
    match put.await? {
        Put::Done(recorded) => Ok(Ok(recorded)),
        Put::Refused(error) => Ok(Err(error)),
        Put::Stranding => stranding(connection, new).await.map(Err),
    }
}

fn is_same(machine: &Machine, new: &NewMachine) -> bool {
    machine.definition_digest == new.digest
}

async fn put_locked(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Put> {
    let (lock, is_stranded) = match is_of_bridges(new) {
        true => (LOCK_BRIDGES, IS_BRIDGE_STRANDED),
        false => (LOCK_ENTITIES, IS_STRANDED),
    };
    connection.batch_execute(lock).await?;
    let current = current(connection, new).await?;
    if let Some(row) = current.as_ref().filter(|it| is_same(it, new)) {
        let row = row.clone();
        return Ok(Put::Done(WriteOutcome {
            row,
            created: false,
        }));
    }
    let version = current.map_or(0, |machine| machine.version);
    if let Some(expected) = new.expected_version.filter(|it| *it != version) {
        return Ok(Put::Refused(Error::RevisionChanged {
            resource: Resource::Machine,
            id: new.entity_type.clone(),
            expected: expected.into(),
            current: version.into(),
        }));
    }
    if !new.allow_stranded {
        let kept: Vec<_> = new.definition.states().into_iter().collect();
        let stranded: Stranded = diesel::sql_query(is_stranded)
            .bind::<Text, _>(&new.namespace)
            .bind::<Text, _>(&new.entity_type)
            .bind::<Array<Text>, _>(kept)
            .get_result(connection)
            .await?;
        if stranded.is_stranded {
            return Ok(Put::Stranding);
        }
    }
    insert(connection, new, version + 1).await.map(Put::Done)
}

fn is_of_bridges(new: &NewMachine) -> bool {
    BuiltIn::from_name(&new.entity_type) == Some(BuiltIn::Bridge)
}

#[derive(QueryableByName)]
struct Stranded {
    #[diesel(sql_type = Bool)]
    is_stranded: bool,
}

async fn current(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Option<Machine>> {
    fsm_machines::table
        .filter(fsm_machines::namespace.eq(&new.namespace))
        .filter(fsm_machines::entity_type.eq(&new.entity_type))
        .select(Machine::as_select())
        .order(fsm_machines::version.desc())
        .first(connection)
        .await
        .optional()
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
        ))
        .returning(Machine::as_returning())
        .get_result(connection)
        .await?;
    Ok(WriteOutcome { row, created: true })
}

/// Says which entities would be stranded.
async fn stranding(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Error> {
    let states = match is_of_bridges(new) {
        true => stranded_bridges(connection, new).await?,
        false => stranded_entities(connection, new).await?,
    };
    Ok(Error::EntitiesStranded {
        entity_type: new.entity_type.clone(),
        count: states.iter().map(|(_, count)| count).sum(),
        states,
    })
}

/// The states that the machine does not have, with how many entities are there.
async fn stranded_entities(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Vec<(String, i64)>> {
    fsm_entities::table
        .filter(fsm_entities::namespace.eq(&new.namespace))
        .filter(fsm_entities::entity_type.eq(&new.entity_type))
        .filter(fsm_entities::current_state.ne_all(new.definition.states()))
        .group_by(fsm_entities::current_state)
        .select((fsm_entities::current_state, count_star()))
        .order(fsm_entities::current_state)
        .load(connection)
        .await
}

/// The same of bridges.
async fn stranded_bridges(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Vec<(String, i64)>> {
    bridge_states::table
        .filter(bridge_states::namespace.eq(&new.namespace))
        .filter(bridge_states::current_fsm_state.ne_all(new.definition.states()))
        .group_by(bridge_states::current_fsm_state)
        .select((bridge_states::current_fsm_state, count_star()))
        .order(bridge_states::current_fsm_state)
        .load(connection)
        .await
}
