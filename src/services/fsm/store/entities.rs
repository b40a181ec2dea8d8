//! Reading and listing entities.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Nullable, Record, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::{
    EntitySql, MachineSql, Machines, current_machine, entity_columns, item_entity, machine_columns,
};
use crate::{
    db::{
        PageQuery,
        batch::{
            lookup::{Found, Lookup, LookupOperation},
            statement::batch_statement,
        },
        collect_page::collect_page,
        schema::fsm_entities,
    },
    domain::{
        error::{Error, Resource, Result},
        id::EntityId,
        namespace::Scoped,
        page::{Page, PageRow},
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
            FROM item", item_entity!(), current_machine!()
    )
}

type Row = (i64, Option<Entity>, Option<Machine>);

/// Reads entities, each with its machine.
pub type GetEntities = LookupOperation<EntityLookup>;

/// The implementation of [`GetEntities`].
pub struct EntityLookup;

impl Lookup for EntityLookup {
    const NAME: &'static str = "GetEntities";
    type Query = EntityKey;
    type Key<'a> = (&'a str, &'a EntityKey);
    type Row = EntityDetails;

    fn key(request: &Scoped<EntityKey>) -> Self::Key<'_> {
        (request.namespace.as_str(), &request.content)
    }

    fn if_missing(request: &Scoped<EntityKey>) -> Result<EntityDetails> {
        Err(Error::NotFound {
            resource: Resource::Entity,
            field: "entity_id",
            name: request.entity_id.to_string(),
            namespace: Some(request.namespace.clone()),
        })
    }

    fn size(details: &EntityDetails) -> usize {
        let machine = details.machine.as_deref();
        details.entity.size() + machine.map_or(0, PageRow::size)
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<EntityKey>],
    ) -> QueryResult<Found<EntityDetails>> {
        let types = requests
            .iter()
            .map(|it| (it.namespace.as_str(), it.entity_type.as_str()));
        let statement = ReadEntities {
            namespace: types.clone().map(|it| it.0).collect(),
            entity_type: types.clone().map(|it| it.1).collect(),
            entity_id: requests.iter().map(|it| it.entity_id).collect(),
            reads_machine: Machines::firsts(types),
        };
        let rows = statement.load_stream::<Row>(connection).await?;
        let rows = rows.map_ok(|(ordinality, entity, machine)| (ordinality, (entity, machine)));
        let size = |row: &(_, Option<Machine>)| row.1.as_ref().map_or(0, PageRow::size);
        let mut found = Found::collect(rows, size).await?;
        let mut machines = Machines::default();
        // The first row of each type has its machine. A batch that stops has read it before others.
        found
            .rows_mut()
            .for_each(|row| machines.extend(row.1.take()));
        Ok(found.filter_map(|(entity, _)| {
            let entity = entity?;
            let machine = machines.of(&entity.namespace, &entity.entity_type);
            let machine = machine.cloned();
            Some(EntityDetails { machine, entity })
        }))
    }
}

/// Lists entities. Those that have been in their state the longest come first.
impl PageQuery for EntityFilter {
    type Row = Entity;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<Entity>> {
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
        collect_page(rows, &scoped.page).await
    }
}
