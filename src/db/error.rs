//! Database errors, and whether to retry them.

use std::sync::Arc;

use diesel::{
    ConnectionError,
    result::{DatabaseErrorKind, Error as DieselError},
};

use crate::{domain::error::Error, ops::metrics::RETRY_CAUSES};

/// A failure of the database or of a connection to it.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection became available in time.
    #[error("database connection failed")]
    NoConnection(#[source] Option<Arc<ConnectionError>>),
    /// The service has not yet seen a current schema.
    #[error("the database schema is not ready")]
    NotReady,
    /// The database has been unavailable for longer than calls wait. A write may have been
    /// done.
    #[error("the database does not answer")]
    Outage,
    /// All connections are in use, and none became free within 1 s.
    #[error("all connections to the database are in use")]
    Busy,
    /// The database did not answer in time. A write may have been done.
    #[error("the database did not answer in time")]
    TimedOut,
    /// The disk of the database is full.
    #[error("the database's disk is full")]
    DiskFull(#[source] DieselError),
    /// A statement failed.
    #[error("a statement failed")]
    Statement(#[source] DieselError),
}

/// The message of PostgreSQL for a full disk (53100), if `lc_messages` is
/// English. diesel-async does not pass on the SQLSTATE.
const NO_SPACE: &str = "No space left on device";

impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(_, information)
                if information.message().contains(NO_SPACE) =>
            {
                DbError::DiskFull(error)
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
        if matches!(error, DbError::Busy) {
            Error::QueueFull
        } else if error.is_unavailable() {
            Error::DatabaseUnavailable(Arc::new(error))
        } else {
            Error::Internal(Arc::new(error))
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
            DbError::Statement(DieselError::DatabaseError(kind, _)) => matches!(
                kind,
                DatabaseErrorKind::UnableToSendCommand
                    | DatabaseErrorKind::ClosedConnection
                    // The server is a standby, or has become one.
                    | DatabaseErrorKind::ReadOnlyTransaction
            ),
            DbError::Busy | DbError::Statement(_) => false,
        }
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
    /// diesel-async does not pass on the SQLSTATE. A deadlock, a statement timeout, a server
    /// shutdown and a bug of the service all are `Unknown`. Retries are bounded, so retrying
    /// a bug does no harm.
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
            | DbError::Statement(_) => false,
        }
    }

    /// Returns whether the connection may be dead, as after errors of an unavailable database.
    ///
    /// PostgreSQL also sends errors before it closes a connection (57P01 to 57P03), which
    /// diesel-async reports as `Unknown`. A new connection costs only milliseconds.
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
            | DbError::Statement(_) => None,
        }
    }
}
