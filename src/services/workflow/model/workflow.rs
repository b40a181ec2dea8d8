//! Workflows: to start, as they are stored, to read, to list, to delete.

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

/// A workflow that begins.
#[derive(Debug)]
pub struct NewWorkflow {
    /// The id that the caller chose, or a new one.
    pub id: WorkflowId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The caller's own name for it.
    pub correlation_id: CorrelationId,
    /// What kind it is.
    pub workflow_type: String,
    /// The state it begins in.
    pub current_state: State,
    /// When it began; now if not given.
    pub started_at: Option<DateTime<Utc>>,
    /// What is kept with it.
    pub metadata: JsonObject,
    /// Tells a retry.
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

/// How a caller names a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkflowKey {
    /// By its primary key.
    Id(WorkflowId),
    /// By the caller's own name.
    CorrelationId(CorrelationId),
}

impl WorkflowKey {
    /// The primary key, if that is what it is.
    #[must_use]
    pub fn id(self) -> Option<WorkflowId> {
        match self {
            WorkflowKey::Id(id) => Some(id),
            WorkflowKey::CorrelationId(_) => None,
        }
    }

    /// The caller's own name, if that is what it is.
    #[must_use]
    pub fn correlation_id(self) -> Option<CorrelationId> {
        match self {
            WorkflowKey::Id(_) => None,
            WorkflowKey::CorrelationId(id) => Some(id),
        }
    }
}

/// A workflow to read.
#[derive(Debug)]
pub struct WorkflowQuery {
    /// Which.
    pub key: WorkflowKey,
    /// Whether with its stamps.
    pub include_stamps: bool,
}

/// A workflow with what belongs to it.
#[derive(Debug, Clone)]
pub struct WorkflowDetails {
    /// The workflow.
    pub workflow: Workflow,
    /// Its first steps.
    pub steps: Vec<Step>,
    /// Whether there are more steps than these.
    pub has_more_steps: bool,
    /// Its first stamps, if they were asked for.
    pub stamps: Vec<Stamp>,
    /// Whether there are more stamps than these.
    pub has_more_stamps: bool,
}

/// A workflow in a list.
#[derive(Debug)]
pub struct WorkflowSummary {
    /// The workflow.
    pub workflow: Workflow,
    /// How many steps it has.
    pub step_count: i64,
}

/// Which workflows to list.
#[derive(Debug)]
pub struct WorkflowFilter {
    /// In one of these states; any if empty.
    pub states: Vec<State>,
    /// Of this type.
    pub workflow_type: Option<String>,
    /// Started after this time.
    pub started_after: Option<DateTime<Utc>>,
    /// Started before this time.
    pub started_before: Option<DateTime<Utc>>,
    /// Started within this many microseconds before the database's present.
    pub started_within_micros: Option<i64>,
    /// With metadata that contains this; anything contains the empty object.
    pub metadata: JsonObject,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}

/// A workflow to delete.
#[derive(Debug)]
pub struct Deletion {
    /// The id of its row in the journal.
    pub id: TransitionId,
    /// Which.
    pub workflow_id: WorkflowId,
    /// Whether it is fine if it is not there.
    pub allow_missing: bool,
}
