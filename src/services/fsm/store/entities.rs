//! Entities: to read, many callers in one round trip, and to list.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Nullable, Record, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{FutureExt, future::BoxFuture};

use super::{EntitySql, MachineSql, Machines, entity_columns, machine_columns};
use crate::{
    db::{
        DbError, TenantQuery,
        batch::{
            Operation,
            statement::{batch_statement, place},
        },
        collect_page::collect_page,
        schema::fsm_entities,
    },
    domain::{
        error::{Error, Resource, Result},
        id::EntityId,
        namespace::Scoped,
        page::Page,
    },
    services::fsm::model::{Entity, EntityDetails, EntityFilter, EntityKey, Machine},
};

batch_statement! {
    /// Reads entities, and with the first one of each type its current machine.
    struct ReadEntities<'a> {
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        entity_id: EntityId => Uuid,
        reads_machine: bool => Bool,
    }
    returns (BigInt, Nullable<EntitySql>, Nullable<MachineSql>);
    concat!(
        " SELECT item.ordinality, ", entity_columns!(), ", ", machine_columns!(), "
            FROM item
            LEFT JOIN LATERAL (
                 SELECT * FROM fsm_entities e
                  WHERE e.entity_id = item.entity_id
                    AND e.namespace IS NOT DISTINCT FROM item.namespace
                    AND e.entity_type IS NOT DISTINCT FROM item.entity_type
                  LIMIT 1) e ON true
            LEFT JOIN LATERAL (
                 SELECT * FROM fsm_machines m
                  WHERE item.reads_machine
                    AND m.namespace = item.namespace AND m.entity_type = item.entity_type
                  ORDER BY m.version DESC LIMIT 1) m ON true"
    )
}

/// Reads entities, each with its machine.
pub struct GetEntities;

impl Operation for GetEntities {
    const NAME: &'static str = "GetEntities";

    type Item = Scoped<EntityKey>;
    type Answer = EntityDetails;
    type Key = EntityId;

    fn key(item: &Self::Item) -> EntityId {
        item.entity_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
        async move {
            let rows: Vec<(i64, Option<Entity>, Option<Machine>)> =
                read(items).load(connection).await?;
            let mut machines = Machines::default();
            let mut entities: Vec<Option<Entity>> = items.iter().map(|_| None).collect();
            for (ordinality, entity, machine) in rows {
                if let Some(slot) = entities.get_mut(place(ordinality)) {
                    *slot = entity;
                }
                machine
                    .into_iter()
                    .for_each(|machine| machines.add(machine));
            }
            let answers = items.iter().zip(entities).map(|(item, entity)| {
                let entity = entity.ok_or_else(|| no_entity(item))?;
                let machine = machines.of(&entity.namespace, &entity.entity_type);
                Ok(EntityDetails {
                    machine: machine.cloned(),
                    entity,
                })
            });
            Ok(answers.collect())
        }
        .boxed()
    }
}

fn read<'a>(items: &[&'a Scoped<EntityKey>]) -> ReadEntities<'a> {
    let kinds = items
        .iter()
        .map(|item| (item.namespace.as_str(), item.entity_type.as_str()));
    ReadEntities {
        namespace: kinds.clone().map(|kind| kind.0).collect(),
        entity_type: kinds.clone().map(|kind| kind.1).collect(),
        entity_id: items.iter().map(|item| item.entity_id).collect(),
        reads_machine: Machines::firsts(kinds),
        ..ReadEntities::default()
    }
}

fn no_entity(key: &EntityKey) -> Error {
    Error::NotFound {
        resource: Resource::Entity,
        field: "entity_id",
        name: key.entity_id.to_string(),
    }
}

/// Lists entities, those first that have been where they are the longest.
impl TenantQuery for EntityFilter {
    type Answer = Page<Entity>;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let mut query = fsm_entities::table
            .filter(fsm_entities::namespace.eq(&scoped.namespace))
            .filter(fsm_entities::entity_type.eq(&scoped.entity_type))
            .select(Entity::as_select())
            .order((fsm_entities::state_since, fsm_entities::entity_id))
            .limit(scoped.page.size + 1)
            .into_boxed();
        if let Some(state) = &scoped.current_state {
            query = query.filter(fsm_entities::current_state.eq(state));
        }
        if let Some(time) = scoped.state_since_before {
            query = query.filter(fsm_entities::state_since.lt(time));
        }
        if let Some((time, id)) = scoped.page.after {
            let row = (fsm_entities::state_since, fsm_entities::entity_id);
            query = query.filter(row.into_sql::<Record<(Timestamptz, Uuid)>>().gt((time, id)));
        }
        let rows = query.load_stream(connection).await?;
        Ok(Ok(collect_page(rows, &scoped.page).await?))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}
