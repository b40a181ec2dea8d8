//! Putting machines.
//!
//! A new version must not strand an entity that changes its state at the same moment. So the
//! table of entities is locked for writers, from just before the check of their states until
//! the commit. The check takes a few index lookups, however many entities exist. Stranded
//! entities are counted after the lock is released. A concurrent batch that decided by the old
//! version finds at its write that the version is outdated, and decides again.

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
        planner::raw_statement,
        schema::{bridge_states, fsm_entities, fsm_machines},
    },
    domain::{
        error::{Error, Resource, Result},
        namespace::Scoped,
        write_outcome::WriteOutcome,
    },
    services::fsm::model::{BuiltIn, Machine, NewMachine},
};

/// Lock out writers. The timeout is short, because all writers queue behind the lock while it
/// waits, for example for a VACUUM.
const LOCK_ENTITIES: &str = "SET LOCAL lock_timeout = '2s';
     LOCK TABLE fsm_entities IN SHARE ROW EXCLUSIVE MODE";
const LOCK_BRIDGES: &str = "SET LOCAL lock_timeout = '2s';
     LOCK TABLE bridge_states IN SHARE ROW EXCLUSIVE MODE";

raw_statement! {
/// Whether an entity is in a state that the machine lacks. Goes from state to state, by one
/// index lookup each, and stops at the first such state.
const IS_STRANDED(Text, Text, Array<Text>) = "
    WITH RECURSIVE states AS (
        SELECT min(current_state) AS state FROM fsm_entities
         WHERE namespace = $1 AND entity_type = $2
        UNION ALL
        SELECT (SELECT min(current_state) FROM fsm_entities
                 WHERE namespace = $1 AND entity_type = $2 AND current_state > states.state)
          FROM states WHERE states.state = ANY ($3)
    )
    SELECT EXISTS (SELECT FROM states WHERE state <> ALL ($3)) AS is_stranded";
}

raw_statement! {
/// The same for bridges, of which a namespace has few.
const IS_BRIDGE_STRANDED(Text, Text, Array<Text>) = "
    SELECT EXISTS (
        SELECT FROM bridge_states
         WHERE namespace = $1 AND $2 <> '' AND current_fsm_state <> ALL ($3)) AS is_stranded";
}

/// Puts machines. Idempotent by definition.
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

    /// A transient error here means that the lock was not available, even after retries.
    fn refusal(_item: &Self::Item, error: DbError) -> Error {
        match error.is_transient() {
            true => Error::DatabaseUnavailable(Arc::new(error)),
            false => error.into(),
        }
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

/// Returns the error that lists the stranded entities.
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

/// Returns the states that the machine lacks, each with its number of entities.
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

/// Returns the same for bridges.
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
