//! A move that a machine does not have.

use std::fmt;

use super::describe::{list, listed};

/// A move that a machine does not have.
#[derive(Debug, Clone, Default)]
pub struct RefusedMove {
    /// The type of the entity.
    pub entity_type: String,
    /// The id of the entity.
    pub entity_id: String,
    /// Its current state; empty if it has none yet.
    pub current: String,
    /// The event; empty if the request leaves it to the machine.
    pub event: String,
    /// The requested state; empty if the request leaves it to the machine.
    pub to: String,
    /// The moves that are allowed.
    pub allowed: Vec<AllowedMove>,
}

/// A move that a machine has.
#[derive(Debug, Clone)]
pub struct AllowedMove {
    /// The event; `None` if any event starts the entity.
    pub event: Option<String>,
    /// The state that it leads to.
    pub state: String,
}

impl AllowedMove {
    /// Formats the move for a list that programs read.
    pub(super) fn listed(&self) -> String {
        let event = self.event.as_deref().map_or("*".to_owned(), listed);
        format!("{event}={}", listed(&self.state))
    }
}

impl fmt::Display for AllowedMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.event.as_deref().unwrap_or("*"), self.state)
    }
}

impl fmt::Display for RefusedMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.entity_type, self.entity_id)?;
        if let ("", "", [start]) = (self.current.as_str(), self.to.as_str(), &*self.allowed) {
            return write!(f, "does not exist yet; it must start in {}", start.state);
        }
        match self.current.as_str() {
            "" => f.write_str("does not exist yet and cannot start")?,
            current => write!(f, "cannot move from {current}")?,
        }
        if !self.to.is_empty() {
            let word = if self.current.is_empty() { "in" } else { "to" };
            write!(f, " {word} {}", self.to)?;
        }
        if !self.event.is_empty() {
            write!(f, " by {}", self.event)?;
        }
        match self.allowed.as_slice() {
            [first] if self.current.is_empty() => {
                write!(f, "; it must start in {}", first.state)
            }
            [] => write!(f, "; {} is terminal", self.current),
            allowed => write!(f, "; allowed from there: {}", list(allowed, ", ")),
        }
    }
}
