//! Workflows: the stored row, and the requests to start, read, list and delete.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::{Stamp, State, Step};
use crate::{
    db::schema::workflow_executions,
    domain::{
        digest::RequestDigest,
        id::{CorrelationId, TransitionId, WorkflowId},
        json::JsonObject,
        page::{PageRequest, TimePosition},
    },
};

/// The request to start a workflow.
#[derive(Debug)]
pub struct NewWorkflow {
    /// The id, chosen by the caller or generated.
    pub id: WorkflowId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The id of the first row of the journal, which the service makes for the call.
    pub transition_id: TransitionId,
    /// The caller's id of the workflow, which is the idempotency key.
    pub correlation_id: CorrelationId,
    /// The type of the workflow.
    pub workflow_type: String,
    /// The initial state.
    pub current_state: State,
    /// The start time; unset for the current time.
    pub started_at: Option<DateTime<Utc>>,
    /// A document that is stored with the workflow.
    pub metadata: JsonObject,
    /// The digest of the content, which identifies a retry.
    pub request_digest: RequestDigest,
}

/// A row of workflow_executions.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = workflow_executions)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Workflow {
    pub id: WorkflowId,
    pub correlation_id: CorrelationId,
    pub workflow_type: String,
    pub current_state: State,
    pub namespace: String,
    pub started_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
    pub execution_time_ms: Option<i64>,
    pub error_message: Option<String>,
    pub metadata: JsonObject,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The key by which a caller reads a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkflowKey {
    /// The primary key.
    Id(WorkflowId),
    /// The caller's id of the workflow.
    CorrelationId(CorrelationId),
}

impl WorkflowKey {
    /// Returns the id, if the key is one.
    #[must_use]
    pub fn id(self) -> Option<WorkflowId> {
        match self {
            WorkflowKey::Id(id) => Some(id),
            WorkflowKey::CorrelationId(_) => None,
        }
    }

    /// Returns the correlation id, if the key is one.
    #[must_use]
    pub fn correlation_id(self) -> Option<CorrelationId> {
        match self {
            WorkflowKey::Id(_) => None,
            WorkflowKey::CorrelationId(id) => Some(id),
        }
    }
}

/// The request to read a workflow.
#[derive(Debug)]
pub struct WorkflowQuery {
    /// The key of the workflow.
    pub key: WorkflowKey,
    /// Whether to read its stamps, too.
    pub include_stamps: bool,
}

/// A workflow with its first steps and stamps.
#[derive(Debug, Clone)]
pub struct WorkflowDetails {
    /// The workflow.
    pub workflow: Workflow,
    /// The first steps.
    pub steps: Vec<Step>,
    /// Whether there are more steps than these.
    pub has_more_steps: bool,
    /// The first stamps, if the request includes them.
    pub stamps: Vec<Stamp>,
    /// Whether there are more stamps than these.
    pub has_more_stamps: bool,
}

/// A workflow in a list.
#[derive(Debug)]
pub struct WorkflowSummary {
    /// The workflow.
    pub workflow: Workflow,
    /// Number of its steps, at most [`MAX_STEP_COUNT`](Self::MAX_STEP_COUNT).
    pub step_count: i64,
    /// Whether it has more steps.
    pub has_more_steps: bool,
}

impl WorkflowSummary {
    /// The number up to which the steps of a workflow are counted.
    pub const MAX_STEP_COUNT: i64 = 1000;

    /// Creates a summary. `counted` is the number of steps, or a larger one than
    /// [`MAX_STEP_COUNT`](Self::MAX_STEP_COUNT) if there may be more.
    #[must_use]
    pub fn new(workflow: Workflow, counted: i64) -> Self {
        WorkflowSummary {
            workflow,
            step_count: counted.min(Self::MAX_STEP_COUNT),
            has_more_steps: counted > Self::MAX_STEP_COUNT,
        }
    }
}

/// The filter of a list of workflows.
#[derive(Debug)]
pub struct WorkflowFilter {
    /// Selects workflows in these states; any state if empty.
    pub states: Vec<State>,
    /// Selects workflows of this type.
    pub workflow_type: Option<String>,
    /// Selects workflows started after this time.
    pub started_after: Option<DateTime<Utc>>,
    /// Selects workflows started before this time.
    pub started_before: Option<DateTime<Utc>>,
    /// Selects workflows started within this many microseconds before the database's now().
    pub started_within_micros: Option<i64>,
    /// Selects workflows whose metadata contains this document; all contain the empty one.
    pub metadata: JsonObject,
    /// The requested page.
    pub page: PageRequest<TimePosition>,
}

/// The request to delete a workflow.
#[derive(Debug)]
pub struct Deletion {
    /// The id of the move in the journal.
    pub id: TransitionId,
    /// The id of the workflow.
    pub workflow_id: WorkflowId,
    /// Whether to answer `false`, and not with an error, if the workflow is missing.
    pub allow_missing: bool,
}
