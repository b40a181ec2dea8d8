//! Moves of a workflow through its lifecycle.

use chrono::{DateTime, Utc};

use super::{ENTITY_TYPE, State, Workflow};
use crate::{
    db::journal::{Transition, Xid},
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{TransitionId, WorkflowId},
        json::JsonObject,
    },
    rpc::validate::ProtoEnum,
};

/// The request to move a workflow.
#[derive(Debug)]
pub struct Move {
    /// The workflow to move.
    pub workflow_id: WorkflowId,
    /// The requested state.
    pub to_state: State,
    /// The state that the workflow has to be in; unset for any.
    pub expected_state: Option<State>,
    /// The id of the move in the journal, chosen by the caller or generated.
    pub id: TransitionId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The event of the move; unset for the lifecycle's own.
    pub transition_event: Option<String>,
    /// A document that the journal stores with the move.
    pub transition_data: JsonObject,
    /// The reason of a failure or a cancellation.
    pub error_message: Option<String>,
    /// A JSON Merge Patch (RFC 7396) of the workflow's metadata.
    pub metadata_patch: JsonObject,
    /// The digest of the content, which identifies a retry.
    pub request_digest: RequestDigest,
}

impl Workflow {
    /// Moves the workflow at time `now`, and returns the row for the journal. If the move is
    /// rejected, the workflow stays as it was.
    ///
    /// # Errors
    /// [`Error::StateChanged`], [`Error::WorkflowMoveNotAllowed`], and [`Error::InvalidRequest`] if
    /// the metadata would become too large.
    pub fn apply(&mut self, wanted: &Move, now: DateTime<Utc>) -> Result<Transition> {
        let event = self.check_move(wanted)?;
        // now() is the start of the transaction, which may be before the previous move.
        let now = now.max(self.updated_at);
        if !wanted.metadata_patch.is_empty() {
            let mut metadata = self.metadata.clone();
            metadata
                .merge(&wanted.metadata_patch)
                .map_err(|error| Error::invalid_field("metadata", error))?;
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
            // The store sets these.
            token_id: None,
            xid: Xid::default(),
            seq: 0,
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
                expected: expected.proto_name().to_owned(),
                current: current.proto_name().to_owned(),
            });
        }
        current
            .event_to(wanted.to_state)
            .ok_or_else(|| Error::WorkflowMoveNotAllowed {
                workflow_id: self.id.to_string(),
                current: current.proto_name(),
                to: wanted.to_state.proto_name(),
                allowed: current.allowed().map(State::proto_name).collect(),
            })
    }
}

/// The answer to a move.
#[derive(Debug)]
pub struct Moved {
    /// The workflow after the move; its current state if an earlier call made the move.
    pub workflow: Workflow,
    /// The row of the journal.
    pub transition: Transition,
    /// Whether this call made the move, and not an earlier one.
    pub applied: bool,
}
