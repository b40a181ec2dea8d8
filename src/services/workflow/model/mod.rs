//! The domain types of workflows, steps and stamps, and the lifecycle of a workflow.

mod lifecycle;
mod list_position;
mod stamp;
mod step;
mod transition;
mod workflow;

pub use lifecycle::{ENTITY_TYPE, LIFECYCLE, State};
pub use stamp::{NewStamp, Stamp, StampFilter};
pub use step::{NewStep, Step, StepFilter, StepPosition, StepStatus};
pub use transition::{Move, Moved};
pub use workflow::{
    Deletion, NewWorkflow, Workflow, WorkflowDetails, WorkflowFilter, WorkflowKey, WorkflowQuery,
    WorkflowSummary,
};
