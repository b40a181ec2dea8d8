//! The errors of migrating.

use diesel::result::Error as DieselError;

use crate::db::sql_state::{
    DEADLOCK_DETECTED, INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, is_connection_lost, sql_state,
};

/// A failure of migrating, or of reading the status.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be reached.
    #[error("cannot connect to the database")]
    Connect(#[from] diesel::ConnectionError),
    /// A statement around the migrations failed.
    #[error("a statement failed")]
    Statement(#[source] DieselError),
    /// The role lacks a right.
    #[error(
        "the role lacks a right; run as the owner of the tables, or give it what `bridgebook migrate up \
         --plan` and `bridgebook database grants` print"
    )]
    MissingRight(#[source] DieselError),
    /// The journal comes from another cluster, and the role cannot adopt it.
    #[error(
        "the journal was restored from another cluster, and this role is not {owner}, the owner of the \
         table fsm_transitions; run `bridgebook migrate up` once as {owner}, which lets new rows follow \
         the restored ones"
    )]
    NotOwner {
        /// The role that owns the journal.
        owner: String,
    },
    /// The connection was lost during a migration.
    #[error("the connection was lost during migration {name}")]
    ConnectionLost {
        /// The name of the migration.
        name: &'static str,
        /// The error of its statement.
        #[source]
        source: DieselError,
    },
    /// A migration failed. Those before it are applied.
    #[error("migration {name} failed; those before it are applied")]
    Migration {
        /// The name of the migration.
        name: &'static str,
        /// The error of its statement.
        #[source]
        source: DieselError,
    },
    /// The pooler in between shares sessions, so it would give the lock of this session to others.
    #[error(
        "the pooler in front of PostgreSQL shares sessions; connect to PostgreSQL directly, or set \
         pool_mode = session"
    )]
    SharedSessions,
    /// New tables would be created in another schema than that of the present ones.
    #[error(
        "the tables are in the schema {present:?}, and new ones would be created in {current:?}; set the \
         search_path of the role, or add options=-csearch_path={present} to the address"
    )]
    OtherSchema {
        /// The schema of the present tables.
        present: String,
        /// The first schema of the search path that exists.
        current: String,
    },
    /// No migration is applied, so none can be reverted.
    #[error("no migration is applied, so none can be reverted")]
    NoneApplied,
    /// A newer version has applied the last migration, so its down.sql is unknown.
    #[error("migration {0} is of another version of bridgebook; revert it with that version")]
    UnknownVersion(String),
}

impl From<DieselError> for MigrationError {
    fn from(error: DieselError) -> Self {
        match sql_state(&error) {
            Some(INSUFFICIENT_PRIVILEGE) => MigrationError::MissingRight(error),
            _ => MigrationError::Statement(error),
        }
    }
}

impl MigrationError {
    /// Returns whether the database was unreachable or the connection was lost, so that a retry may succeed.
    /// A retry continues with the first migration that is not applied.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            MigrationError::Connect(_) | MigrationError::ConnectionLost { .. } => true,
            MigrationError::Statement(error) => is_connection_lost(error),
            MigrationError::Migration { .. }
            | MigrationError::MissingRight(_)
            | MigrationError::NotOwner { .. }
            | MigrationError::SharedSessions
            | MigrationError::OtherSchema { .. }
            | MigrationError::NoneApplied
            | MigrationError::UnknownVersion(_) => false,
        }
    }
}

/// Returns whether a statement was the victim of a deadlock.
pub(super) fn is_deadlock(error: &DieselError) -> bool {
    sql_state(error) == Some(DEADLOCK_DETECTED)
}

/// Returns whether a statement did not get a lock within `lock_timeout`.
pub(super) fn is_lock_timeout(error: &DieselError) -> bool {
    sql_state(error) == Some(LOCK_NOT_AVAILABLE)
}
