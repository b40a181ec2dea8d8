//! Quotas: the limits of a tenant, or of a token.

use std::{fmt, num::NonZeroU32};

use super::id::TokenId;

/// The tenant or the token that a quota applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaSubject {
    /// A namespace.
    Namespace(String),
    /// A token.
    Token(TokenId),
}

impl QuotaSubject {
    /// Returns the setting with the default of a limit, if there is one.
    #[must_use]
    pub fn setting(&self, limit: QuotaLimit) -> Option<&'static str> {
        match (self, limit) {
            (QuotaSubject::Namespace(_), QuotaLimit::CallsPerSecond) => {
                Some("--max-namespace-rate")
            }
            (QuotaSubject::Namespace(_), QuotaLimit::ItemsPerSecond) => {
                Some("--max-namespace-item-rate")
            }
            (QuotaSubject::Namespace(_), QuotaLimit::CallsInProgress) => {
                Some("--max-namespace-requests")
            }
            (QuotaSubject::Token(_), QuotaLimit::CallsPerSecond) => Some("--max-rate"),
            (QuotaSubject::Token(_), _) => None,
        }
    }
}

impl fmt::Display for QuotaSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaSubject::Namespace(name) => write!(f, "namespace {name}"),
            QuotaSubject::Token(id) => write!(f, "token {id}"),
        }
    }
}

/// The limits in force for a subject, on this replica; `None` for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Maximum number of calls per second.
    pub calls_per_second: Option<NonZeroU32>,
    /// Maximum number of items per second.
    pub items_per_second: Option<NonZeroU32>,
    /// Maximum number of calls in progress.
    pub calls_in_progress: Option<NonZeroU32>,
}

/// The limits in force for a subject, and which of them come from an operator's quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubjectLimits {
    /// The limits.
    pub limits: QuotaLimits,
    /// The limits that an operator has set. The others are the defaults of the settings.
    pub set: SetLimits,
}

/// The limits of a quota that an operator has set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetLimits {
    /// Whether [`QuotaLimits::calls_per_second`] is set.
    pub calls_per_second: bool,
    /// Whether [`QuotaLimits::items_per_second`] is set.
    pub items_per_second: bool,
    /// Whether [`QuotaLimits::calls_in_progress`] is set.
    pub calls_in_progress: bool,
}

impl SetLimits {
    /// Returns whether a limit is set.
    #[must_use]
    pub fn has(self, limit: QuotaLimit) -> bool {
        match limit {
            QuotaLimit::CallsPerSecond => self.calls_per_second,
            QuotaLimit::ItemsPerSecond => self.items_per_second,
            QuotaLimit::CallsInProgress => self.calls_in_progress,
        }
    }
}

/// A limit of a quota, by the name that the contract gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaLimit {
    /// [`QuotaLimits::calls_per_second`].
    CallsPerSecond,
    /// [`QuotaLimits::items_per_second`].
    ItemsPerSecond,
    /// [`QuotaLimits::calls_in_progress`].
    CallsInProgress,
}

impl QuotaLimit {
    /// Returns the name of the field in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaLimit::CallsPerSecond => "calls_per_second",
            QuotaLimit::ItemsPerSecond => "items_per_second",
            QuotaLimit::CallsInProgress => "calls_in_progress",
        }
    }
}

/// The values that an operator sets, for the audit log; `None` for the default.
#[derive(Debug, Clone, Copy)]
pub struct QuotaChange {
    /// Maximum number of calls per second.
    pub calls_per_second: Option<i32>,
    /// Maximum number of items per second.
    pub items_per_second: Option<i32>,
    /// Maximum number of calls in progress.
    pub calls_in_progress: Option<i32>,
    /// The share of turns.
    pub weight: Option<i32>,
}

/// The limits of tenants and tokens without a quota of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuotaDefaults {
    /// The limits of each namespace.
    pub namespace: QuotaLimits,
    /// The limits of each token.
    pub token: QuotaLimits,
}
