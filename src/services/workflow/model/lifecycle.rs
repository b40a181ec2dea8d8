//! The lifecycle of a workflow: its states, and the moves between them.

use crate::domain::text_enum::text_enum;

/// The `entity_type` of workflows in the journal.
pub const ENTITY_TYPE: &str = "workflow";

text_enum! {
    /// The state of a workflow.
    pub enum State {
        /// Recorded, not started yet.
        Pending = "PENDING",
        /// Running.
        Processing = "PROCESSING",
        /// Ended successfully.
        Completed = "COMPLETED",
        /// Ended with an error; it may be retried.
        Failed = "FAILED",
        /// Cancelled before it ended by itself.
        Cancelled = "CANCELLED",
    }
}

/// The moves of the lifecycle: from a state, by an event, to a state.
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
    /// Returns whether a workflow may start in this state.
    #[must_use]
    pub fn is_initial(self) -> bool {
        matches!(self, State::Pending | State::Processing)
    }

    /// Returns whether a workflow in this state has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Cancelled)
    }

    /// Returns whether a workflow in this state may have an error message.
    #[must_use]
    pub fn has_error_message(self) -> bool {
        matches!(self, State::Failed | State::Cancelled)
    }

    /// Returns the event of the move to `to`; `None` if the lifecycle does not allow it.
    #[must_use]
    pub fn event_to(self, to: State) -> Option<&'static str> {
        let mut moves = LIFECYCLE.iter();
        moves
            .find(|(from, _, target)| (*from, *target) == (self, to))
            .map(|(_, event, _)| *event)
    }

    /// Returns the states that a workflow in this state may move to.
    pub fn allowed(self) -> impl Iterator<Item = State> {
        let moves = LIFECYCLE.iter().filter(move |(from, _, _)| *from == self);
        moves.map(|(_, _, to)| *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifecycle_allows_exactly_the_documented_moves() {
        let allowed = |from: State| from.allowed().collect::<Vec<_>>();
        assert_eq!(
            allowed(State::Pending),
            [State::Processing, State::Failed, State::Cancelled]
        );
        assert_eq!(
            allowed(State::Processing),
            [State::Completed, State::Failed, State::Cancelled]
        );
        assert_eq!(allowed(State::Failed), [State::Processing]);
        assert!(allowed(State::Completed).is_empty());
        assert!(allowed(State::Cancelled).is_empty());
    }
}
