//! Moves of entities: the request, and its answer.

use super::{Entity, EntityKey};
use crate::{
    db::journal::Transition,
    domain::{digest::RequestDigest, id::TransitionId, json::JsonObject},
};

/// The request to move an entity.
#[derive(Debug)]
pub struct NewTransition {
    /// The id of the move in the journal, chosen by the caller or generated.
    pub id: TransitionId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The entity to move.
    pub entity: EntityKey,
    /// The state that the entity has to be in; empty for a new entity, unset for any.
    pub from_state: Option<String>,
    /// The requested state; unset to leave it to the machine.
    pub to_state: Option<String>,
    /// The event of the move.
    pub transition_event: String,
    /// A document that the journal stores with the move.
    pub transition_data: JsonObject,
    /// The digest of the content, which identifies a retry.
    pub request_digest: RequestDigest,
}

/// The answer to a move.
#[derive(Debug)]
pub struct Moved {
    /// The entity after the move; its current state if an earlier call made the move.
    pub entity: Entity,
    /// The row of the journal.
    pub transition: Transition,
    /// Whether this call made the move, and not an earlier one.
    pub applied: bool,
}
