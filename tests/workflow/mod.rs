//! WorkflowService, one file per RPC.

mod batch_record_stamps;
mod batch_record_steps;
mod delete_workflow;
mod get_workflow;
mod list_stamps;
mod list_steps;
mod list_workflows;
mod omitted_fields;
mod record_stamp;
mod record_step;
mod start_workflow;
mod step_counts;
mod transition_workflow;
