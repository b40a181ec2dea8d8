//! Violations: the invalid fields of a request.

use std::fmt;

/// One invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field from the request: `steps[3].step_order`. An unset oneof has
    /// its own name.
    pub field: String,
    /// The rule that the value breaks, as a predicate of the field: `must be …, got …`.
    pub description: String,
}

/// The violations of a request; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    /// The first violations.
    pub listed: Vec<Violation>,
    /// The number of violations that are not listed.
    pub unlisted: usize,
}

impl Violations {
    /// Makes the violations of a request with one invalid field.
    #[must_use]
    pub fn one(field: &str, description: impl fmt::Display) -> Self {
        let violation = Violation {
            field: field.to_owned(),
            description: description.to_string(),
        };
        Violations {
            listed: vec![violation],
            unlisted: 0,
        }
    }

    /// Returns the violations with paths that begin in the message around `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        for violation in &mut self.listed {
            violation.field = format!("{field}.{}", violation.field);
        }
        self
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The number tells how many do not fit into the list, or into a status.
        let all = self.listed.len() + self.unlisted;
        if all > 1 {
            write!(f, "{all} violations: ")?;
        }
        for (index, Violation { field, description }) in self.listed.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field} {description}")?;
        }
        Ok(())
    }
}
