//! Moves of entities and bridges: the request, the rules, and the answer.

use uuid::Uuid;

use super::{Entity, EntityKey, Machine};
use crate::{
    db::journal::Transition,
    domain::{
        digest::RequestDigest,
        error::{Error, RefusedMove, Result},
        id::TransitionId,
        journal::{MOVE_EVENT, START_EVENT},
        json::JsonObject,
    },
};

/// A move that a request asks for: of an entity, or of a bridge.
#[derive(Debug)]
pub struct WantedMove<'a> {
    /// The type of the entity.
    pub entity_type: &'a str,
    /// The id of the entity.
    pub entity_id: Uuid,
    /// The state that the move leaves; unset for a new entity.
    pub current: Option<&'a str>,
    /// The event of the move; unset to leave it to the machine.
    pub event: Option<&'a str>,
    /// The requested state; unset to leave it to the machine.
    pub to: Option<&'a str>,
    /// The field of the request that names the requested state.
    pub to_field: &'static str,
}

impl WantedMove<'_> {
    /// Returns the event and the target state of the move, by the rules of the machine, if
    /// there is one.
    ///
    /// An event alone does not start an entity: otherwise a move that is meant for an existing
    /// entity would start a new one by accident.
    ///
    /// # Errors
    /// [`Error::EntityMoveNotAllowed`], and [`Error::InvalidRequest`] if neither the request
    /// nor a machine names the target state.
    pub fn find(&self, machine: Option<&Machine>) -> Result<(String, String)> {
        let Some(machine) = machine else {
            return self.without_machine();
        };
        let definition = &machine.definition;
        let is_accident = self.current.is_none() && self.to.is_none() && self.event.is_some();
        let found = definition
            .find(self.current, self.event, self.to)
            .filter(|_| !is_accident);
        let found = found.map(|(event, to)| (event.to_owned(), to.to_owned()));
        found.ok_or_else(|| {
            Error::EntityMoveNotAllowed(Box::new(definition.with_allowed_moves(RefusedMove {
                entity_type: self.entity_type.to_owned(),
                entity_id: self.entity_id.to_string(),
                current: self.current.unwrap_or_default().to_owned(),
                event: self.event.unwrap_or_default().to_owned(),
                to: self.to.unwrap_or_default().to_owned(),
                allowed: Vec::new(),
            })))
        })
    }

    /// Without a machine every move is allowed.
    fn without_machine(&self) -> Result<(String, String)> {
        let entity_type = self.entity_type;
        let rule = format!("is required, because the namespace has no machine for {entity_type}");
        let to = self
            .to
            .ok_or_else(|| Error::invalid_field(self.to_field, rule))?;
        let event = self.event.unwrap_or(match self.current {
            None => START_EVENT,
            Some(_) => MOVE_EVENT,
        });
        Ok((event.to_owned(), to.to_owned()))
    }
}

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
