//! Machines: reading, listing, and the machines of a batch.

use std::{collections::HashMap, sync::Arc};

use diesel::{dsl::SqlTypeOf, pg::Pg, prelude::*};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{DbError, PageQuery, TenantQuery, collect_page::collect_page, schema::fsm_machines},
    domain::{
        error::{Error, Resource, Result},
        namespace::{Namespace, Scoped},
        page::Page,
    },
    services::{
        fsm::model::{Machine, MachineFilter, MachineQuery, MachineVersion},
        workflow,
    },
};

/// The columns of [`Machine`], in order, of the table alias `m`.
macro_rules! machine_columns {
    () => {
        "m.namespace, m.entity_type, m.version, m.definition, m.definition_digest, m.created_at"
    };
}

pub(crate) use machine_columns;

/// Joins the items with `reads_machine` with the current machine of their type, as `m`.
macro_rules! current_machine {
    () => {
        $crate::db::planner::left_lookup!(
            "fsm_machines",
            "m",
            "item.reads_machine AND m.namespace = item.namespace
                AND m.entity_type = item.entity_type
              ORDER BY m.version DESC"
        )
    };
}

pub(crate) use current_machine;

/// The SQL types of the columns of [`Machine`].
pub type MachineSql = SqlTypeOf<<Machine as Selectable<Pg>>::SelectExpression>;

/// The current machines of a batch's items, by namespace and entity type.
///
/// A batch reads each machine once, with the first item that needs it. It writes only if the
/// machines are still current, see `outdated_machines!`.
#[derive(Debug, Default)]
pub struct Machines(HashMap<(String, String), Arc<Machine>>);

impl Machines {
    /// Returns for each item whether it is the first of its namespace and entity type.
    pub fn firsts<'a>(kinds: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<bool> {
        let mut seen = std::collections::HashSet::new();
        kinds.map(|kind| seen.insert(kind)).collect()
    }

    /// Adds the machine of a row, if it has one.
    pub fn extend(&mut self, machine: Option<Machine>) {
        self.0.extend(machine.map(|machine| {
            let key = (machine.namespace.clone(), machine.entity_type.clone());
            (key, Arc::new(machine))
        }));
    }

    /// Returns the machine of an entity type, if it has one.
    #[must_use]
    pub fn of(&self, namespace: &str, entity_type: &str) -> Option<&Arc<Machine>> {
        self.0.get(&(namespace.to_owned(), entity_type.to_owned()))
    }
}

pub(super) fn no_machine(namespace: &Namespace, entity_type: &str) -> Error {
    Error::NotFound {
        resource: Resource::Machine,
        field: "entity_type",
        name: entity_type.to_owned(),
        namespace: Some(namespace.clone()),
    }
}

/// Reads a version of a machine, by default the current one.
impl TenantQuery for MachineQuery {
    type Answer = MachineVersion;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let is_built_in = scoped.entity_type == workflow::model::ENTITY_TYPE;
        if is_built_in && scoped.version.is_none() {
            return Ok(Ok(MachineVersion::of_workflows(
                scoped.namespace.to_string(),
            )));
        }
        let mut query = fsm_machines::table
            .filter(fsm_machines::namespace.eq(&scoped.namespace))
            .filter(fsm_machines::entity_type.eq(&scoped.entity_type))
            .select(Machine::as_select())
            .order(fsm_machines::version.desc())
            .into_boxed();
        if let Some(version) = scoped.version {
            query = query.filter(fsm_machines::version.eq(version));
        }
        let machine = query.first(connection).await.optional()?;
        let machine = machine.ok_or_else(|| match scoped.version {
            None => no_machine(&scoped.namespace, &scoped.entity_type),
            Some(version) => Error::NotFound {
                resource: Resource::Machine,
                field: "version",
                name: format!("{version} of {}", scoped.entity_type),
                namespace: Some(scoped.namespace.clone()),
            },
        });
        Ok(machine.map(MachineVersion::from))
    }
}

/// Lists current machines, by entity type.
impl PageQuery for MachineFilter {
    type Row = Machine;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<Machine>> {
        let mut query = fsm_machines::table
            .distinct_on(fsm_machines::entity_type)
            .filter(fsm_machines::namespace.eq(&scoped.namespace))
            .select(Machine::as_select())
            .order((fsm_machines::entity_type, fsm_machines::version.desc()))
            .limit(scoped.page.size + 1)
            .into_boxed();
        if let Some(after) = &scoped.page.after {
            query = query.filter(fsm_machines::entity_type.gt(after));
        }
        let rows = query.load_stream(connection).await?;
        collect_page(rows, &scoped.page).await
    }
}
