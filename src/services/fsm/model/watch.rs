//! A watch of the journal: what to stream, and where to begin.

use uuid::Uuid;

use crate::{
    db::feed::scope::TransitionMatch,
    domain::{id::BridgeId, position::Position},
};

/// The request to stream the journal.
#[derive(Debug)]
pub struct WatchRequest {
    /// The transitions to stream.
    pub wanted: TransitionMatch,
    /// Where to begin.
    pub begin: WatchBegin,
    /// The states of the workflows to begin with, beside all other entities; `None` to begin without
    /// the present states.
    pub snapshot: Option<Vec<String>>,
}

/// The present state of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentState {
    /// The type of the entity.
    pub entity_type: String,
    /// The id of the entity, as in the journal.
    pub entity_id: Uuid,
    /// The state.
    pub current_state: String,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchBegin {
    /// After a position.
    After(Position),
    /// With the oldest row.
    Start,
    /// With the rows that are not committed yet.
    Now,
    /// After the position that a bridge has consumed.
    AfterBridge(BridgeId),
}
