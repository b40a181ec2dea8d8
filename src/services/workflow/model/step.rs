//! Steps: the request to append one, the stored row, and the filter of a list.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use crate::{
    db::schema::workflow_steps,
    domain::text_enum::text_enum,
    domain::{
        digest::RequestDigest,
        id::{StepId, WorkflowId},
        json::JsonObject,
        namespace::Namespace,
        page::PageRequest,
    },
};

text_enum! {
    /// The status of a step.
    #[derive(Default)]
    pub enum StepStatus {
        /// Planned, not started yet.
        #[default]
        Pending = "PENDING",
        /// Running.
        Processing = "PROCESSING",
        /// Ended successfully.
        Completed = "COMPLETED",
        /// Ended with an error.
        Failed = "FAILED",
        /// Not needed in this run.
        Skipped = "SKIPPED",
    }
}

/// The position of a step within its workflow: by `step_order`, then by id.
pub type StepPosition = (i32, uuid::Uuid);

/// The request to append a step.
#[derive(Debug, Default)]
pub struct NewStep {
    /// The id, chosen by the caller or generated.
    pub id: StepId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The workflow that the step belongs to.
    pub workflow_id: WorkflowId,
    /// The name of the step.
    pub step_name: String,
    /// The place of the step within the workflow.
    pub step_order: i32,
    /// The status of the step.
    pub status: StepStatus,
    /// The run time of the step, in milliseconds.
    pub execution_time_ms: Option<i64>,
    /// A document that is stored with the step.
    pub step_data: JsonObject,
    /// The reason of a failure.
    pub error_message: Option<String>,
    /// The digest of the content, which identifies a retry.
    pub request_digest: RequestDigest,
}

/// A row of workflow_steps.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = workflow_steps)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Step {
    pub id: StepId,
    pub namespace: String,
    pub workflow_id: WorkflowId,
    pub step_name: String,
    pub step_order: i32,
    pub status: StepStatus,
    pub execution_time_ms: Option<i64>,
    pub step_data: JsonObject,
    pub error_message: Option<String>,
    pub created_at: DateTime<Utc>,
}

impl Step {
    /// Returns the stored row of a new step.
    #[must_use]
    pub fn stored(new: &NewStep, namespace: &Namespace, created_at: DateTime<Utc>) -> Self {
        Step {
            id: new.id,
            namespace: namespace.to_string(),
            workflow_id: new.workflow_id,
            step_name: new.step_name.clone(),
            step_order: new.step_order,
            status: new.status,
            execution_time_ms: new.execution_time_ms,
            step_data: new.step_data.clone(),
            error_message: new.error_message.clone(),
            created_at,
        }
    }
}

/// The filter of a list of steps.
#[derive(Debug)]
pub struct StepFilter {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The requested page.
    pub page: PageRequest<StepPosition>,
}
