//! Steps: to append, as they are stored, to list.

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
    /// What became of a step.
    #[derive(Default)]
    pub enum StepStatus {
        /// Planned, not yet begun.
        #[default]
        Pending = "PENDING",
        /// Under way.
        Processing = "PROCESSING",
        /// Ended well.
        Completed = "COMPLETED",
        /// Ended badly.
        Failed = "FAILED",
        /// Not needed this time.
        Skipped = "SKIPPED",
    }
}

/// Where a step stands among the steps of its workflow.
pub type StepPosition = (i32, uuid::Uuid);

/// A step to append.
#[derive(Debug, Default)]
pub struct NewStep {
    /// The id that the caller chose, or a new one.
    pub id: StepId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The workflow that it belongs to.
    pub workflow_id: WorkflowId,
    /// What was done.
    pub step_name: String,
    /// Its place.
    pub step_order: i32,
    /// What became of it.
    pub status: StepStatus,
    /// How long it took.
    pub execution_time_ms: Option<i64>,
    /// What is kept with it.
    pub step_data: JsonObject,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Tells a retry.
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
    /// The row that a new step became.
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

/// Whose steps to list.
#[derive(Debug)]
pub struct StepFilter {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Which page.
    pub page: PageRequest<StepPosition>,
}
