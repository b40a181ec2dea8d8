//! What workflows, steps and stamps are, and by which rules a workflow moves.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use crate::{
    db::schema::{fsm_transitions, metadata_stamps, workflow_executions, workflow_steps},
    digest::RequestDigest,
    error::{Error, Result},
    id::{CorrelationId, StampId, StepId, TransitionId, WorkflowId},
    json::JsonObject,
    namespace::Namespace,
    page::PageRequest,
    text_enum,
};

/// The journal's name for workflows.
pub const ENTITY_TYPE: &str = "workflow";
/// The event of a workflow's first move.
pub const START_EVENT: &str = "start";
/// The event and the state of a workflow's last move, when it is deleted.
pub const DELETE_EVENT: &str = "delete";
/// See [`DELETE_EVENT`].
pub const DELETED: &str = "DELETED";

text_enum! {
    /// Where a workflow is in its lifecycle.
    pub enum State {
        /// Recorded, not yet begun.
        Pending = "PENDING",
        /// Under way.
        Processing = "PROCESSING",
        /// Ended well.
        Completed = "COMPLETED",
        /// Ended badly.
        Failed = "FAILED",
        /// Called off.
        Cancelled = "CANCELLED",
    }
}

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

/// The lifecycle: from which state, by which event, to which state.
pub const LIFECYCLE: &[(State, &str, State)] = &[
    (State::Pending, "process", State::Processing),
    (State::Pending, "fail", State::Failed),
    (State::Pending, "cancel", State::Cancelled),
    (State::Processing, "complete", State::Completed),
    (State::Processing, "fail", State::Failed),
    (State::Processing, "cancel", State::Cancelled),
    (State::Failed, "retry", State::Processing),
];

impl State {
    /// Whether a workflow may begin in this state.
    #[must_use]
    pub fn is_initial(self) -> bool {
        matches!(self, State::Pending | State::Processing)
    }

    /// Whether a workflow in this state has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Cancelled)
    }

    /// Whether a workflow in this state may have an error message.
    #[must_use]
    pub fn has_error_message(self) -> bool {
        matches!(self, State::Failed | State::Cancelled)
    }

    /// The lifecycle's word for the move from here to `to`, if it allows it.
    #[must_use]
    pub fn event_to(self, to: State) -> Option<&'static str> {
        let mut moves = LIFECYCLE.iter();
        moves
            .find(|(from, _, target)| (*from, *target) == (self, to))
            .map(|(_, event, _)| *event)
    }

    fn allowed(self) -> Vec<&'static str> {
        let moves = LIFECYCLE.iter().filter(|(from, _, _)| *from == self);
        moves.map(|(_, _, to)| to.as_str()).collect()
    }
}

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

/// A move that a caller asks for.
#[derive(Debug)]
pub struct Move {
    /// The workflow to move.
    pub workflow_id: WorkflowId,
    /// Where to.
    pub to_state: State,
    /// From where, if that matters.
    pub expected_state: Option<State>,
    /// The id that the caller chose for it, if any.
    pub chosen_id: Option<TransitionId>,
    /// Why; the lifecycle's own word if not given.
    pub transition_event: Option<String>,
    /// What is kept with it in the journal.
    pub transition_data: JsonObject,
    /// Why it failed or was cancelled.
    pub error_message: Option<String>,
    /// Changes to the workflow's metadata.
    pub metadata_patch: JsonObject,
    /// Tells a retry.
    pub request_digest: RequestDigest,
}

/// A row of the journal.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = fsm_transitions)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Transition {
    pub id: TransitionId,
    pub entity_id: uuid::Uuid,
    pub entity_type: String,
    pub from_state: Option<String>,
    pub to_state: String,
    pub transition_event: String,
    pub transition_data: JsonObject,
    pub created_at: DateTime<Utc>,
    pub namespace: String,
    pub request_digest: Option<RequestDigest>,
}

impl Workflow {
    /// Moves the workflow at time `now`, and answers the journal's row for it.
    /// A workflow that is refused its move is left as it was.
    ///
    /// # Errors
    /// [`Error::StateChanged`], [`Error::MoveNotAllowed`], and
    /// [`Error::InvalidRequest`] if its metadata would grow too large.
    pub fn apply(&mut self, wanted: &Move, now: DateTime<Utc>) -> Result<Transition> {
        let event = self.check_move(wanted)?;
        if !wanted.metadata_patch.is_empty() {
            let mut metadata = self.metadata.clone();
            metadata
                .merge(&wanted.metadata_patch)
                .map_err(|fault| Error::invalid_field("metadata", fault))?;
            self.metadata = metadata;
        }
        let ended = wanted.to_state.is_terminal().then_some(now);
        let transition = Transition {
            id: wanted.chosen_id.unwrap_or_else(TransitionId::generate),
            entity_id: self.id.0,
            entity_type: ENTITY_TYPE.to_owned(),
            from_state: Some(self.current_state.as_str().to_owned()),
            to_state: wanted.to_state.as_str().to_owned(),
            transition_event: wanted
                .transition_event
                .clone()
                .unwrap_or_else(|| event.to_owned()),
            transition_data: wanted.transition_data.clone(),
            created_at: now,
            namespace: self.namespace.clone(),
            request_digest: Some(wanted.request_digest),
        };
        self.current_state = wanted.to_state;
        self.completed_at = ended;
        self.execution_time_ms = ended.map(|at| (at - self.started_at).num_milliseconds().max(0));
        self.error_message.clone_from(&wanted.error_message);
        self.updated_at = now;
        Ok(transition)
    }

    fn check_move(&self, wanted: &Move) -> Result<&'static str> {
        let current = self.current_state;
        if let Some(expected) = wanted
            .expected_state
            .filter(|expected| *expected != current)
        {
            return Err(Error::StateChanged {
                workflow_id: self.id.to_string(),
                expected: expected.as_str(),
                current: current.as_str(),
            });
        }
        current
            .event_to(wanted.to_state)
            .ok_or_else(|| Error::MoveNotAllowed {
                workflow_id: self.id.to_string(),
                current: current.as_str(),
                to: wanted.to_state.as_str(),
                allowed: current.allowed(),
            })
    }
}

/// What a call that stores a row answers.
#[derive(Debug)]
pub struct Recorded<T> {
    /// The row as it is stored.
    pub row: T,
    /// Whether this call stored it, or an earlier one had.
    pub created: bool,
}

/// What a move answers.
#[derive(Debug)]
pub struct Moved {
    /// The workflow after it, or as it is now if an earlier call made it.
    pub workflow: Workflow,
    /// The journal's row.
    pub transition: Transition,
    /// Whether this call made it, or an earlier one had.
    pub applied: bool,
}

/// How a caller names a workflow.
#[derive(Debug, Clone, Copy)]
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
#[derive(Debug)]
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

/// Where a row stands among rows of its time: by the time, then by the id.
pub type TimePosition = (DateTime<Utc>, uuid::Uuid);
/// Where a step stands among the steps of its workflow.
pub type StepPosition = (i32, uuid::Uuid);

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
    /// Which.
    pub workflow_id: WorkflowId,
    /// Whether it is fine if it is not there.
    pub allow_missing: bool,
}

/// A step to append.
#[derive(Debug, Default)]
pub struct NewStep {
    /// The id that the caller chose, or a new one.
    pub id: StepId,
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

    /// Where it stands among the steps of its workflow.
    #[must_use]
    pub fn position(&self) -> StepPosition {
        (self.step_order, self.id.0)
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

/// A stamp to append.
#[derive(Debug, Default)]
pub struct NewStamp {
    /// The id that the caller chose, or a new one.
    pub id: StampId,
    /// The workflow that made it, if any.
    pub workflow_id: Option<WorkflowId>,
    /// The hash of the file.
    pub file_hash: String,
    /// What was found out.
    pub stamp_data: JsonObject,
    /// Tells a retry.
    pub request_digest: RequestDigest,
}

/// A row of metadata_stamps.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = metadata_stamps)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Stamp {
    pub id: StampId,
    pub namespace: String,
    pub workflow_id: Option<WorkflowId>,
    pub file_hash: String,
    pub stamp_data: JsonObject,
    pub created_at: DateTime<Utc>,
}

impl Stamp {
    /// The row that a new stamp became.
    #[must_use]
    pub fn stored(new: &NewStamp, namespace: &Namespace, created_at: DateTime<Utc>) -> Self {
        Stamp {
            id: new.id,
            namespace: namespace.to_string(),
            workflow_id: new.workflow_id,
            file_hash: new.file_hash.clone(),
            stamp_data: new.stamp_data.clone(),
            created_at,
        }
    }

    /// Where it stands among stamps.
    #[must_use]
    pub fn position(&self) -> TimePosition {
        (self.created_at, self.id.0)
    }
}

/// Which stamps to list.
#[derive(Debug)]
pub struct StampFilter {
    /// On this file.
    pub file_hash: Option<String>,
    /// By this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Created after this time.
    pub created_after: Option<DateTime<Utc>>,
    /// Created before this time.
    pub created_before: Option<DateTime<Utc>>,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifecycle_allows_just_what_the_design_says() {
        let allowed = |from: State| from.allowed();
        assert_eq!(
            allowed(State::Pending),
            ["PROCESSING", "FAILED", "CANCELLED"]
        );
        assert_eq!(
            allowed(State::Processing),
            ["COMPLETED", "FAILED", "CANCELLED"]
        );
        assert_eq!(allowed(State::Failed), ["PROCESSING"]);
        assert!(allowed(State::Completed).is_empty());
        assert!(allowed(State::Cancelled).is_empty());
    }
}
