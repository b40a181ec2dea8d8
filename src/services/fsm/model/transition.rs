//! Moves of entities.

use super::{Entity, EntityKey};
use crate::{
    db::journal::Transition,
    domain::{digest::RequestDigest, id::TransitionId, json::JsonObject},
};

/// A move to make.
#[derive(Debug)]
pub struct NewTransition {
    /// The id that the caller chose for it, or a new one.
    pub id: TransitionId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// Who moves.
    pub entity: EntityKey,
    /// From where, if that matters; the empty string for nowhere yet.
    pub from_state: Option<String>,
    /// Where to; left to the machine if not given.
    pub to_state: Option<String>,
    /// Why.
    pub transition_event: String,
    /// What is kept with it in the journal.
    pub transition_data: JsonObject,
    /// Tells a retry.
    pub request_digest: RequestDigest,
}

/// What a move answers.
#[derive(Debug)]
pub struct Moved {
    /// The entity after it, or as it is now if an earlier call made it.
    pub entity: Entity,
    /// The journal's row.
    pub transition: Transition,
    /// Whether this call made it, or an earlier one had.
    pub applied: bool,
}
