//! Moving a workflow.

use chrono::{DateTime, Utc};

use super::{ENTITY_TYPE, State, Workflow};
use crate::{
    db::journal::Transition,
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{TransitionId, WorkflowId},
        json::JsonObject,
    },
};

/// A move that a caller asks for.
#[derive(Debug)]
pub struct Move {
    /// The workflow to move.
    pub workflow_id: WorkflowId,
    /// Where to.
    pub to_state: State,
    /// From where, if that matters.
    pub expected_state: Option<State>,
    /// The id that the caller chose for it, or a new one.
    pub id: TransitionId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
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

impl Workflow {
    /// Moves the workflow at time `now`, and answers the journal's row for it.
    /// A workflow that is refused its move is left as it was.
    ///
    /// # Errors
    /// [`Error::StateChanged`], [`Error::MoveNotAllowed`], and
    /// [`Error::InvalidRequest`] if its metadata would grow too large.
    pub fn apply(&mut self, wanted: &Move, now: DateTime<Utc>) -> Result<Transition> {
        let event = self.check_move(wanted)?;
        // Not before the move before, whoever made it.
        let now = now.max(self.updated_at);
        if !wanted.metadata_patch.is_empty() {
            let mut metadata = self.metadata.clone();
            metadata
                .merge(&wanted.metadata_patch)
                .map_err(|fault| Error::invalid_field("metadata", fault))?;
            self.metadata = metadata;
        }
        let ended = wanted.to_state.is_terminal().then_some(now);
        let transition = Transition {
            id: wanted.id,
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
            // Whoever stores it knows.
            token_id: None,
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
                resource: Resource::Workflow,
                id: self.id.to_string(),
                expected: expected.as_str().to_owned(),
                current: current.as_str().to_owned(),
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
