//! What is wrong with a request.

use std::fmt;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field: `steps[3].step_order`.
    pub field: String,
    /// What it must be.
    pub description: String,
}

/// Everything that is wrong with a request; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// One violation.
    #[must_use]
    pub fn one(field: &str, description: impl fmt::Display) -> Self {
        Violations(vec![Violation {
            field: field.to_owned(),
            description: description.to_string(),
        }])
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Violation { field, description }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field} {description}")?;
        }
        Ok(())
    }
}
