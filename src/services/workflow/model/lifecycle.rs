//! The states of a workflow, and the moves between them.

use crate::domain::text_enum::text_enum;

/// The journal's name for workflows.
pub const ENTITY_TYPE: &str = "workflow";

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

    /// Where a workflow in this state may go.
    #[must_use]
    pub fn allowed(self) -> Vec<&'static str> {
        let moves = LIFECYCLE.iter().filter(|(from, _, _)| *from == self);
        moves.map(|(_, _, to)| to.as_str()).collect()
    }
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
