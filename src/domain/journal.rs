//! Words of the journal (fsm_transitions) that all services share.

/// The event of an entity's first move, where nobody named another.
pub const START_EVENT: &str = "start";
/// The event and the state of an entity's last move, when it is deleted.
pub const DELETE_EVENT: &str = "delete";
/// See [`DELETE_EVENT`].
pub const DELETED: &str = "DELETED";
