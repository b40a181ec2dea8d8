//! All SQL about machines, entities and the journal. Every statement names the
//! namespace of every row that it touches.

mod entities;
mod history;
mod machines;
mod put;
mod record;

use diesel::{Selectable, dsl::SqlTypeOf, pg::Pg};

pub use entities::GetEntities;
pub use machines::{DeleteMachines, MachineSql, Machines};
pub(crate) use machines::{machine_columns, outdated_machines};
pub use put::PutMachines;
pub use record::RecordTransitions;

use super::model::Entity;

/// The columns of [`Entity`], in its order, of the table alias `e`.
macro_rules! entity_columns {
    () => {
        "e.namespace, e.entity_type, e.entity_id, e.current_state, e.revision, e.state_since, \
         e.created_at"
    };
}

use entity_columns;

type EntitySql = SqlTypeOf<<Entity as Selectable<Pg>>::SelectExpression>;
