//! The SQL of machines, entities and the journal. Every statement names the namespace of
//! every row that it touches.

mod delete;
mod entities;
mod entity_types;
mod history;
mod machines;
mod put;
mod record;
mod snapshot;

use diesel::{Selectable, dsl::SqlTypeOf, pg::Pg};

pub use delete::DeleteMachines;
pub use entities::GetEntities;
pub(crate) use entity_types::outdated_machines;
pub use machines::{MachineSql, Machines};
pub(crate) use machines::{current_machine, machine_columns};
pub use put::PutMachines;
pub use record::RecordTransitions;
pub use snapshot::{SnapshotPart, SnapshotParts, read_snapshot};

use super::model::Entity;

/// The columns of [`Entity`], in order, of the table alias `e`.
macro_rules! entity_columns {
    () => {
        "e.namespace, e.entity_type, e.entity_id, e.current_state, e.revision, e.state_since, \
         e.created_at"
    };
}

/// Joins each item with its entity, as `e`, or with NULLs.
macro_rules! item_entity {
    () => {
        $crate::db::planner::left_lookup!(
            "fsm_entities",
            "e",
            "e.entity_id = item.entity_id AND ",
            $crate::db::planner::same_namespace!("e"),
            " AND ",
            $crate::db::planner::unindexed_eq!("e.entity_type", "item.entity_type")
        )
    };
}

use {entity_columns, item_entity};

type EntitySql = SqlTypeOf<<Entity as Selectable<Pg>>::SelectExpression>;
