//! The error of a call over a quota.

use std::{fmt, time::Duration};

use super::{Code, Description};
use crate::domain::quota::{QuotaLimit, QuotaSubject};

/// A call that is over a limit of its tenant, or of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaExceeded {
    /// The tenant or the token.
    pub subject: QuotaSubject,
    /// The limit.
    pub limit: QuotaLimit,
    /// The value of the limit.
    pub value: u32,
    /// The time until the next call may be admitted.
    pub wait: Duration,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, value) = (&self.subject, self.value);
        let limit = match self.limit {
            QuotaLimit::CallsPerSecond => "calls per second",
            QuotaLimit::ItemsPerSecond => "items per second",
            QuotaLimit::CallsInProgress => "calls in progress",
        };
        write!(f, "{subject} exceeds its quota of {value} {limit}")
    }
}

impl QuotaExceeded {
    pub(super) fn describe(&self) -> Description {
        let description = Description::new(Code::ResourceExhausted, "QUOTA_EXCEEDED");
        let description = match &self.subject {
            QuotaSubject::Namespace(name) => description.with("namespace", name),
            QuotaSubject::Token(id) => description.with("token_id", id.to_string()),
        };
        description
            .with("limit", self.limit.as_str())
            .with("value", self.value.to_string())
            .retry_after(self.wait)
    }
}
