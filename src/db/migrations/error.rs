//! The errors of migrating.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A failure of migrating, or of reading the status.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be reached.
    #[error("cannot connect to the database")]
    Connect(#[from] diesel::ConnectionError),
    /// A statement around the migrations failed.
    #[error("a statement failed")]
    Statement(#[from] DieselError),
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
    /// No migration is applied, so none can be reverted.
    #[error("no migration is applied, so none can be reverted")]
    NoneApplied,
    /// A newer version has applied the last migration, so its down.sql is unknown.
    #[error("migration {0} is of another version of bridgebook; revert it with that version")]
    UnknownVersion(String),
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
            | MigrationError::NoneApplied
            | MigrationError::UnknownVersion(_) => false,
        }
    }
}

/// Returns whether PostgreSQL or the network ended the connection. diesel-async does not pass on the
/// SQLSTATE with which PostgreSQL ends a connection (57P01 to 57P03), so it is recognised by its text.
fn is_connection_lost(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, information) => {
            information.message().starts_with("terminating connection")
        }
        DieselError::DatabaseError(kind, _) => matches!(
            kind,
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand
        ),
        _ => false,
    }
}

/// Returns whether a statement may have been the victim of a deadlock. diesel-async does not pass on the
/// SQLSTATE (40P01), so all errors that it does not know count.
pub(super) fn may_be_deadlock(error: &DieselError) -> bool {
    let is_unknown =
        matches!(error, DieselError::DatabaseError(kind, _) if *kind == DatabaseErrorKind::Unknown);
    is_unknown && !is_connection_lost(error)
}

/// Returns whether a statement did not get a lock within `lock_timeout`. diesel-async does not pass on
/// the SQLSTATE (55P03).
pub(super) fn is_lock_timeout(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, information)
        if information.message().contains("due to lock timeout"))
}
