//! Database errors, and whether to retry them.

use std::sync::Arc;

use diesel::{
    ConnectionError,
    result::{DatabaseErrorKind, Error as DieselError},
};

use super::{
    grants,
    sql_state::{self, sql_state},
};
use crate::{domain::error::Error, ops::metrics::RETRY_CAUSES};

/// A failure of the database or of a connection to it.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection became available in time.
    #[error("database connection failed")]
    NoConnection(#[source] Option<Arc<ConnectionError>>),
    /// The service has not yet seen a current schema.
    #[error("the service has not found a database with a current schema yet")]
    NotReady,
    /// The database has been unavailable for longer than calls wait. A write may have been
    /// done.
    #[error("the database does not answer")]
    Outage,
    /// All connections are in use, and none became free within 1 s.
    #[error("all connections to the database are in use")]
    Busy,
    /// A batch took too long, while the database answered others. A write may have been done.
    #[error("the database did not answer in time")]
    TimedOut,
    /// The disk of the database is full.
    #[error("the database's disk is full")]
    DiskFull(#[source] DieselError),
    /// A statement waited too long for a lock of another session. It wrote nothing.
    #[error("another session holds a lock for too long")]
    LockTimeout(#[source] DieselError),
    /// A statement took longer than its session allows, or an operator cancelled it. It wrote nothing.
    #[error("a statement took too long or was cancelled")]
    StatementTimeout(#[source] DieselError),
    /// The role of the service has lost a right. The text names the statements that give it back.
    #[error("the database role lacks a right; run as the owner of the tables: {grant}")]
    MissingGrant {
        /// The GRANT statement.
        grant: String,
        /// The error of the statement.
        source: DieselError,
    },
    /// The code of an operation panicked, which is a bug.
    #[error("a batch panicked")]
    Panicked,
    /// A statement failed.
    #[error("a statement failed")]
    Statement(#[source] DieselError),
}

impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        match sql_state(&error) {
            Some(sql_state::DISK_FULL) => DbError::DiskFull(error),
            Some(sql_state::LOCK_NOT_AVAILABLE) => DbError::LockTimeout(error),
            Some(sql_state::QUERY_CANCELED) => DbError::StatementTimeout(error),
            Some(sql_state::INSUFFICIENT_PRIVILEGE | sql_state::UNDEFINED_TABLE) => {
                match grants::missing_at_run_time(&error) {
                    Some(grant) => DbError::MissingGrant {
                        grant,
                        source: error,
                    },
                    None => DbError::Statement(error),
                }
            }
            _ => DbError::Statement(error),
        }
    }
}

impl From<ConnectionError> for DbError {
    fn from(error: ConnectionError) -> Self {
        DbError::NoConnection(Some(Arc::new(error)))
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Busy => Error::QueueFull,
            DbError::LockTimeout(_) => Error::Locked(Arc::new(error)),
            DbError::StatementTimeout(_) => Error::StatementTimeout(Arc::new(error)),
            _ if error.is_unavailable() => Error::DatabaseUnavailable(Arc::new(error)),
            _ => Error::Internal(Arc::new(error)),
        }
    }
}

impl DbError {
    /// Returns whether the database could not be reached or written to, or the connection was lost.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            DbError::NoConnection(_)
            | DbError::NotReady
            | DbError::Outage
            | DbError::TimedOut
            | DbError::DiskFull(_) => true,
            DbError::Statement(error) => {
                sql_state::is_connection_lost(error)
                    // The server is a standby, or has become one.
                    || matches!(
                        error,
                        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)
                    )
            }
            DbError::Busy
            | DbError::LockTimeout(_)
            | DbError::StatementTimeout(_)
            | DbError::MissingGrant { .. }
            | DbError::Panicked => false,
        }
    }

    /// Returns whether one item of a batch may have made all others wait, for a lock or for
    /// its own work, or whether all of them together took too long.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            DbError::LockTimeout(_) | DbError::StatementTimeout(_) | DbError::TimedOut
        )
    }

    /// Returns the cause of a retry, one of [`RETRY_CAUSES`].
    #[must_use]
    pub fn retry_cause(&self) -> &'static str {
        let [unavailable, transient] = RETRY_CAUSES;
        match self.is_unavailable() {
            true => unavailable,
            false => transient,
        }
    }

    /// Returns whether the same statements may succeed if they run again.
    ///
    /// A deadlock and a bug of the service both are `Unknown`. Retries are bounded, so retrying a bug
    /// does no harm.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            DbError::Statement(DieselError::DatabaseError(kind, _)) => {
                matches!(
                    kind,
                    DatabaseErrorKind::SerializationFailure | DatabaseErrorKind::Unknown
                )
            }
            DbError::NoConnection(_)
            | DbError::NotReady
            | DbError::Outage
            | DbError::Busy
            | DbError::TimedOut
            | DbError::DiskFull(_)
            | DbError::LockTimeout(_)
            | DbError::StatementTimeout(_)
            | DbError::MissingGrant { .. }
            | DbError::Panicked
            | DbError::Statement(_) => false,
        }
    }

    /// Returns whether the connection may be dead, as after errors of an unavailable database.
    ///
    /// Any `Unknown` error may end it. A new connection costs only milliseconds.
    #[must_use]
    pub fn may_end_connection(&self) -> bool {
        let is_unknown = matches!(
            self,
            DbError::Statement(DieselError::DatabaseError(DatabaseErrorKind::Unknown, _))
        );
        is_unknown || (self.is_unavailable() && !matches!(self, DbError::DiskFull(_)))
    }

    /// Returns the name of the violated constraint.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            DbError::Statement(DieselError::DatabaseError(_, information)) => {
                information.constraint_name()
            }
            DbError::NoConnection(_)
            | DbError::NotReady
            | DbError::Outage
            | DbError::Busy
            | DbError::TimedOut
            | DbError::DiskFull(_)
            | DbError::LockTimeout(_)
            | DbError::StatementTimeout(_)
            | DbError::MissingGrant { .. }
            | DbError::Panicked
            | DbError::Statement(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(message: &str) -> DbError {
        let message = Box::new(message.to_owned());
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, message).into()
    }

    #[test]
    fn a_connection_that_postgresql_ends_is_an_unavailable_database() {
        for message in [
            "57P01: terminating connection due to administrator command",
            "57P02: terminating connection because of crash of another server process",
        ] {
            let error = unknown(message);
            assert!(error.is_unavailable() && error.may_end_connection());
            assert!(matches!(Error::from(error), Error::DatabaseUnavailable(_)));
        }
        let deadlock = unknown("40P01: deadlock detected");
        assert!(!deadlock.is_unavailable() && deadlock.is_transient());
        assert!(matches!(Error::from(deadlock), Error::Internal(_)));
    }
}
