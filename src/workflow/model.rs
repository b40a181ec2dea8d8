//! What workflows, steps and stamps are, and by which rules a workflow moves.

mod lifecycle;
mod listed;
mod stamp;
mod step;
mod transition;
mod workflow;

pub use lifecycle::{DELETE_EVENT, DELETED, ENTITY_TYPE, LIFECYCLE, START_EVENT, State};
pub use listed::{Listed, trim};
pub use stamp::{NewStamp, Stamp, StampFilter};
pub use step::{NewStep, Step, StepFilter, StepPosition, StepStatus};
pub use transition::{Move, Moved, Transition};
pub use workflow::{
    Deletion, NewWorkflow, Workflow, WorkflowDetails, WorkflowFilter, WorkflowKey, WorkflowQuery,
    WorkflowSummary,
};

use chrono::{DateTime, Utc};

/// What a call that stores a row answers.
#[derive(Debug)]
pub struct Recorded<T> {
    /// The row as it is stored.
    pub row: T,
    /// Whether this call stored it, or an earlier one had.
    pub created: bool,
}

/// Where a row stands among rows of its time: by the time, then by the id.
pub type TimePosition = (DateTime<Utc>, uuid::Uuid);
