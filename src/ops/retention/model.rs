//! Retention: tables, default ages and policies.

use chrono::{DateTime, Utc};

use crate::domain::{
    page::{PageRequest, PageRow},
    text_enum::Stored,
    time::YEAR_SECONDS,
};

/// The shortest retention in seconds: an hour. A write that is retried after its row was removed
/// is applied a second time; no client retries for that long.
pub const MIN_AGE: i64 = 3600;

/// The longest retention in seconds: a thousand years.
pub const MAX_AGE: i64 = 1000 * YEAR_SECONDS;

crate::domain::text_enum::text_enum! {
    /// A table that grows without bound.
    pub enum Table {
        /// Ended workflows with their steps, by completed_at.
        Workflows = "workflow_executions",
        /// The journal, by created_at.
        Transitions = "fsm_transitions",
        /// Batches that bridges have accumulated, by created_at.
        Batches = "bridge_batches",
        /// Stamps, by created_at.
        Stamps = "metadata_stamps",
    }
}

/// How long rows are kept in namespaces without a policy, in seconds; `None` for an unlimited
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionDefaults {
    /// Ended workflows.
    pub workflows: Option<i64>,
    /// Rows of the journal.
    pub transitions: Option<i64>,
    /// Batches of bridges.
    pub batches: Option<i64>,
    /// Stamps.
    pub stamps: Option<i64>,
}

impl RetentionDefaults {
    /// Returns how long the rows of a table are kept.
    #[must_use]
    pub fn of(&self, table: Table) -> Option<i64> {
        match table {
            Table::Workflows => self.workflows,
            Table::Transitions => self.transitions,
            Table::Batches => self.batches,
            Table::Stamps => self.stamps,
        }
    }
}

/// A row of `retention_policies`.
#[derive(Debug, Clone, diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = crate::db::schema::retention_policies)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Policy {
    pub namespace: String,
    pub table_name: Stored<Table>,
    pub max_age_seconds: Option<i64>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl PageRow for Policy {
    type Position = String;

    fn position(&self) -> String {
        // A namespace has no space.
        let table = self.table_name.name(Table::as_str);
        format!("{} {table}", self.namespace)
    }

    fn size(&self) -> usize {
        crate::domain::page::ROW_BYTES
    }
}

/// A policy to set.
#[derive(Debug)]
pub struct NewPolicy {
    /// The namespace and the table.
    pub key: PolicyKey,
    /// How long rows are kept, in seconds; `None` for an unlimited time.
    pub max_age_seconds: Option<i64>,
}

/// The key of a policy.
#[derive(Debug)]
pub struct PolicyKey {
    /// The namespace. Operators may name any, also one without rows.
    pub namespace: String,
    /// The table.
    pub table: Table,
}

/// A policy to remove, after which the settings apply again.
#[derive(Debug)]
pub struct PolicyRemoval<'a>(pub &'a PolicyKey);

/// Which policies to list.
#[derive(Debug)]
pub struct PolicyFilter {
    /// The page.
    pub page: PageRequest<String>,
}
