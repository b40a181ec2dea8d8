//! The SQL of workflows, steps and stamps. Every statement names the namespace of every row
//! that it touches.

mod delete;
mod get;
mod list;
mod stamps;
mod start;
mod steps;
mod transition;

use diesel::{Selectable, dsl::SqlTypeOf, pg::Pg};

pub use delete::DeleteWorkflows;
pub use get::GetWorkflows;
pub use stamps::RecordStamps;
pub use start::StartWorkflows;
pub use steps::RecordSteps;
pub use transition::MoveWorkflows;

use super::model::{Stamp, Step, Workflow};
use crate::domain::{
    error::{Error, Resource},
    id::WorkflowId,
    namespace::Namespace,
};

/// The columns of [`Workflow`], in order, of the table alias `w`.
macro_rules! workflow_columns {
    () => {
        "w.id, w.correlation_id, w.workflow_type, w.current_state, w.namespace, w.started_at, \
         w.completed_at, w.execution_time_ms, w.error_message, w.metadata, w.created_at, w.updated_at"
    };
}

/// The columns of [`Step`], in order, of the table alias `s`.
macro_rules! step_columns {
    () => {
        "s.id, s.namespace, s.workflow_id, s.step_name, s.step_order, s.status, \
         s.execution_time_ms, s.step_data, s.error_message, s.created_at"
    };
}

/// The columns of [`Stamp`], in order, of the table alias `m`.
macro_rules! stamp_columns {
    () => {
        "m.id, m.namespace, m.workflow_id, m.file_hash, m.stamp_data, m.created_at"
    };
}

use {stamp_columns, step_columns, workflow_columns};

type WorkflowSql = SqlTypeOf<<Workflow as Selectable<Pg>>::SelectExpression>;
type StepSql = SqlTypeOf<<Step as Selectable<Pg>>::SelectExpression>;
type StampSql = SqlTypeOf<<Stamp as Selectable<Pg>>::SelectExpression>;

fn no_workflow(namespace: &Namespace, id: WorkflowId) -> Error {
    Error::NotFound {
        resource: Resource::Workflow,
        field: "workflow_id",
        name: id.to_string(),
        namespace: Some(namespace.clone()),
    }
}
