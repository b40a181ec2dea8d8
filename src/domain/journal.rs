//! Events and states of the journal (fsm_transitions) that all services share.

/// The event of an entity's first move, unless the request names another.
pub const START_EVENT: &str = "start";
/// The event of a later move, unless the request or the machine names another.
pub const MOVE_EVENT: &str = "move";
/// The event of the move that deletes an entity.
pub const DELETE_EVENT: &str = "delete";
/// The state that a deleted entity has in the journal.
pub const DELETED: &str = "DELETED";
