//! What is kept, and for how long.

use chrono::{DateTime, Utc};

use crate::domain::page::{PageRequest, PageRow};

/// The shortest time for which rows are kept, in seconds: an hour. Who sends a write
/// again after its row is gone has it done again; nobody tries for so long.
pub const MIN_AGE: i64 = 3600;

/// The longest time, in seconds: a thousand years.
pub const MAX_AGE: i64 = 1000 * 365 * 24 * 3600;

crate::domain::text_enum::text_enum! {
    /// A table that grows for ever.
    pub enum Table {
        /// Workflows that have ended, with their steps, by completed_at.
        Workflows = "workflow_executions",
        /// The journal, by created_at.
        Transitions = "fsm_transitions",
        /// Which batches bridges have seen, by created_at.
        Batches = "bridge_batches",
        /// Stamps, by created_at.
        Stamps = "metadata_stamps",
    }
}

/// How long each table's rows are kept, in seconds, where nothing else is said; `None`
/// for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionDefaults {
    /// Of workflows that have ended.
    pub workflows: Option<i64>,
    /// Of the journal.
    pub transitions: Option<i64>,
    /// Of batches.
    pub batches: Option<i64>,
    /// Of stamps.
    pub stamps: Option<i64>,
}

impl RetentionDefaults {
    /// How long a table's rows are kept.
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
#[expect(missing_docs, reason = "the columns are documented in the database, and in schema.rs")]
pub struct Policy {
    pub namespace: String,
    pub table_name: Table,
    pub max_age_seconds: Option<i64>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl PageRow for Policy {
    type Position = String;

    fn position(&self) -> String {
        // No namespace has a space in it.
        format!("{} {}", self.namespace, self.table_name.as_str())
    }

    fn size(&self) -> usize {
        crate::domain::page::ROW_BYTES
    }
}

/// Sets how long the rows of a namespace are kept.
#[derive(Debug)]
pub struct NewPolicy {
    /// Which rows.
    pub key: PolicyKey,
    /// How long, in seconds; `None` for ever.
    pub max_age_seconds: Option<i64>,
}

/// Names a policy.
#[derive(Debug)]
pub struct PolicyKey {
    /// The tenant; an operator's word, so it may be any.
    pub namespace: String,
    /// The table.
    pub table: Table,
}

/// Takes a policy back; the settings hold again.
#[derive(Debug)]
pub struct PolicyRemoval(pub PolicyKey);

/// Lists policies.
#[derive(Debug)]
pub struct PolicyFilter {
    /// Which page.
    pub page: PageRequest<String>,
}
