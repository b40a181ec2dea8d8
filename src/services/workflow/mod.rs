//! WorkflowService: workflow runs (workflow_executions), their steps (workflow_steps), and the
//! stamps that they record for files (metadata_stamps).

mod convert;
pub mod model;
pub mod service;
mod store;
