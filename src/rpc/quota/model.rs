//! Stored quotas.

use chrono::{DateTime, Utc};

use crate::domain::{
    page::{PageRequest, PageRow, ROW_BYTES},
    quota::{QuotaLimits, QuotaSubject, SetLimits, SubjectLimits},
};

/// The largest weight: a namespace with it gets a hundred times the share of others.
pub const MAX_WEIGHT: i32 = 100;

crate::domain::text_enum::text_enum! {
    /// The kind of a [`QuotaSubject`].
    pub enum SubjectKind {
        /// A namespace.
        Namespace = "namespace",
        /// A token.
        Token = "token",
    }
}

impl SubjectKind {
    /// Returns the kind of a subject, and its name.
    #[must_use]
    pub fn of(subject: &QuotaSubject) -> (Self, String) {
        match subject {
            QuotaSubject::Namespace(name) => (SubjectKind::Namespace, name.clone()),
            QuotaSubject::Token(id) => (SubjectKind::Token, id.to_string()),
        }
    }
}

impl Quota {
    /// Returns the kind of the subject; `None` if a newer version has set the quota, for a kind that
    /// this one does not know.
    #[must_use]
    pub fn kind(&self) -> Option<SubjectKind> {
        let mut kinds = SubjectKind::ALL.iter().copied();
        kinds.find(|kind| kind.as_str() == self.subject_kind)
    }
}

/// A row of `quotas`.
#[derive(Debug, Clone, diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = crate::db::schema::quotas)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Quota {
    pub subject_kind: String,
    pub subject: String,
    #[diesel(embed)]
    pub values: QuotaValues,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The limits of a quota. `None` stands for the default of the settings, 0 for no limit.
#[derive(
    Debug,
    Clone,
    Copy,
    diesel::AsChangeset,
    diesel::Insertable,
    diesel::Queryable,
    diesel::Selectable,
)]
#[diesel(table_name = crate::db::schema::quotas, treat_none_as_null = true)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct QuotaValues {
    pub calls_per_second: Option<i32>,
    pub items_per_second: Option<i32>,
    pub calls_in_progress: Option<i32>,
    pub weight: Option<i32>,
}

impl QuotaValues {
    /// Returns the limits in force.
    #[must_use]
    pub fn limits(&self, default: QuotaLimits) -> SubjectLimits {
        let limit = |value: Option<i32>, default| match value {
            None => default,
            Some(value) => u32::try_from(value).ok().and_then(|it| it.try_into().ok()),
        };
        SubjectLimits {
            limits: QuotaLimits {
                calls_per_second: limit(self.calls_per_second, default.calls_per_second),
                items_per_second: limit(self.items_per_second, default.items_per_second),
                calls_in_progress: limit(self.calls_in_progress, default.calls_in_progress),
            },
            set: SetLimits {
                calls_per_second: self.calls_per_second.is_some(),
                items_per_second: self.items_per_second.is_some(),
                calls_in_progress: self.calls_in_progress.is_some(),
            },
        }
    }
}

impl PageRow for Quota {
    type Position = String;

    fn position(&self) -> String {
        // A kind has no space.
        format!("{} {}", self.subject_kind, self.subject)
    }

    fn size(&self) -> usize {
        ROW_BYTES
    }
}

/// A quota to set.
#[derive(Debug)]
pub struct NewQuota {
    /// The tenant or the token.
    pub subject: QuotaSubject,
    /// Its limits.
    pub values: QuotaValues,
}

/// A quota to delete.
#[derive(Debug)]
pub struct QuotaKey(pub QuotaSubject);

/// The deletion of a quota, after which the settings apply again.
#[derive(Debug)]
pub struct QuotaRemoval<'a>(pub &'a QuotaKey);

/// Which quotas to list.
#[derive(Debug)]
pub struct QuotaFilter {
    /// The page.
    pub page: PageRequest<String>,
}
