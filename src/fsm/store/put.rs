//! Putting machines.
//!
//! A new version must not strand an entity that moves at the same moment. So
//! while the states of entities are looked at, nobody moves: the table of
//! entities is locked for writers, from just before the look until the commit,
//! which is milliseconds. Who decided by the old version before finds, when he
//! writes, that it is not current any more, and decides again.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    db::{
        DbError,
        batch::Operation,
        schema::{bridge_states, fsm_entities, fsm_machines},
    },
    error::{Error, Resource, Result},
    fsm::model::{BuiltIn, Machine, NewMachine},
    namespace::Scoped,
    recorded::Recorded,
};

/// Locks out writers. Who holds the table for longer than this, such as a
/// migration, is not waited for, because all writers would wait behind us.
const LOCK_ENTITIES: &str = "SET LOCAL lock_timeout = '2s'; LOCK TABLE fsm_entities IN SHARE MODE";
const LOCK_BRIDGES: &str = "SET LOCAL lock_timeout = '2s'; LOCK TABLE bridge_states IN SHARE MODE";

/// Finds the states that there are, each by one look into the index, however
/// many entities there are.
const STATES_OF_ENTITIES: &str = "
    WITH RECURSIVE states AS (
        SELECT min(current_state) AS state FROM fsm_entities
         WHERE namespace = $1 AND entity_type = $2
        UNION ALL
        SELECT (SELECT min(current_state) FROM fsm_entities
                 WHERE namespace = $1 AND entity_type = $2 AND current_state > states.state)
          FROM states WHERE states.state IS NOT NULL
    )
    SELECT state FROM states WHERE state IS NOT NULL";

/// Puts machines: the same definition once.
pub struct PutMachines;

impl Operation for PutMachines {
    type Item = Scoped<NewMachine>;
    type Answer = Recorded<Machine>;
    type Key = String;

    fn key(item: &Self::Item) -> String {
        item.entity_type.clone()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        async move {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                let put = connection.transaction(async |connection| put(connection, item).await);
                answers.push(put.await?);
            }
            Ok(answers)
        }
        .boxed()
    }
}

async fn put(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Result<Recorded<Machine>>> {
    let is_of_bridges = BuiltIn::named(&new.entity_type) == Some(BuiltIn::Bridge);
    connection
        .batch_execute(if is_of_bridges {
            LOCK_BRIDGES
        } else {
            LOCK_ENTITIES
        })
        .await?;
    let current = current(connection, new).await?;
    if let Some(current) = &current
        && current.definition_digest == new.digest
    {
        return Ok(Ok(Recorded {
            row: current.clone(),
            created: false,
        }));
    }
    let version = current.map_or(0, |machine| machine.version);
    if let Some(expected) = new.expected_version.filter(|it| *it != version) {
        return Ok(Err(Error::RevisionChanged {
            resource: Resource::Machine,
            id: new.entity_type.clone(),
            expected: expected.into(),
            current: version.into(),
        }));
    }
    if !new.allow_stranded {
        let stranded = match is_of_bridges {
            true => stranded_bridges(connection, new).await?,
            false => stranded_entities(connection, new).await?,
        };
        if !stranded.is_empty() {
            return Ok(Err(Error::EntitiesStranded {
                entity_type: new.entity_type.clone(),
                count: stranded.iter().map(|(_, count)| count).sum(),
                states: stranded,
            }));
        }
    }
    insert(connection, new, version + 1).await.map(Ok)
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
) -> QueryResult<Recorded<Machine>> {
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
    Ok(Recorded { row, created: true })
}

#[derive(QueryableByName)]
struct StateName {
    #[diesel(sql_type = Text)]
    state: String,
}

/// The states that the machine does not have, with how many entities are there.
async fn stranded_entities(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Vec<(String, i64)>> {
    let states: Vec<StateName> = diesel::sql_query(STATES_OF_ENTITIES)
        .bind::<Text, _>(&new.namespace)
        .bind::<Text, _>(&new.entity_type)
        .load(connection)
        .await?;
    let kept = new.definition.states();
    let mut stranded = Vec::new();
    for StateName { state } in states {
        if kept.contains(state.as_str()) {
            continue;
        }
        let count = fsm_entities::table
            .filter(fsm_entities::namespace.eq(&new.namespace))
            .filter(fsm_entities::entity_type.eq(&new.entity_type))
            .filter(fsm_entities::current_state.eq(&state))
            .count()
            .get_result(connection)
            .await?;
        stranded.push((state, count));
    }
    Ok(stranded)
}

/// The same of bridges, of which a namespace has few.
async fn stranded_bridges(
    connection: &mut AsyncPgConnection,
    new: &Scoped<NewMachine>,
) -> QueryResult<Vec<(String, i64)>> {
    let counts: Vec<(String, i64)> = bridge_states::table
        .filter(bridge_states::namespace.eq(&new.namespace))
        .group_by(bridge_states::current_fsm_state)
        .select((
            bridge_states::current_fsm_state,
            diesel::dsl::sql::<BigInt>("count(*)"),
        ))
        .order(bridge_states::current_fsm_state)
        .load(connection)
        .await?;
    let kept = new.definition.states();
    let counts = counts.into_iter();
    Ok(counts
        .filter(|(state, _)| !kept.contains(state.as_str()))
        .collect())
}
