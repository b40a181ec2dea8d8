//! Violations: the invalid fields of a request.

use std::fmt;

/// One invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field: `steps[3].step_order`.
    pub field: String,
    /// The rule that the value breaks, as a predicate of the field: `must be …, got …`.
    pub description: String,
}

/// All violations of a request; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// Makes the violations of a request with one invalid field.
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
