//! The error of a call over a quota.

use std::{fmt, time::Duration};

use super::{Code, Description};
use crate::{
    domain::quota::{QuotaLimit, QuotaSubject},
    util::counted::counted,
};

/// A call that is over a limit of its tenant, or of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaExceeded {
    /// The tenant or the token.
    pub subject: QuotaSubject,
    /// The limit.
    pub limit: QuotaLimit,
    /// The value of the limit.
    pub value: u32,
    /// Whether the limit is the default of a setting, and not one that an operator has set.
    pub is_default: bool,
    /// The time after which to retry: until the next call may be admitted, or some seconds.
    pub wait: Duration,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, value) = (&self.subject, self.value);
        let (one, many) = match self.limit {
            QuotaLimit::CallsPerSecond => ("call per second", "calls per second"),
            QuotaLimit::ItemsPerSecond => ("item per second", "items per second"),
            QuotaLimit::CallsInProgress => ("call in progress", "calls in progress"),
        };
        let limit = counted(value, one, many);
        write!(f, "{subject} exceeds its quota of {limit}, ")?;
        match self.setting() {
            Some(setting) => write!(f, "the default of {setting}"),
            None => f.write_str("which an operator has set"),
        }
    }
}

impl QuotaExceeded {
    /// Returns the setting that has the limit, unless an operator has set it.
    fn setting(&self) -> Option<&'static str> {
        let setting = self.subject.setting(self.limit);
        setting.filter(|_| self.is_default)
    }

    pub(super) fn describe(&self) -> Description {
        let description = Description::new(Code::ResourceExhausted, "QUOTA_EXCEEDED");
        let description = match &self.subject {
            QuotaSubject::Namespace(name) => description.with("namespace", name),
            QuotaSubject::Token(id) => description.with("token_id", id.to_string()),
        };
        let description = match self.setting() {
            Some(setting) => description.with("setting", setting),
            None => description,
        };
        description
            .with("limit", self.limit.as_str())
            .with("value", self.value.to_string())
            .retry_after(self.wait)
    }
}
