//! What can go wrong between us and PostgreSQL, and what to do about it.

use std::sync::Arc;

use diesel::{
    ConnectionError,
    result::{DatabaseErrorKind, Error as DieselError},
};

use crate::{domain::error::Error, ops::metrics::RETRY_CAUSES};

/// A failure of the database or of the way to it.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had in time.
    #[error("no connection to the database could be had")]
    NoConnection(#[source] Option<Arc<ConnectionError>>),
    /// The schema is not known to be current yet.
    #[error("the schema of the database is not ready")]
    NotReady,
    /// Nothing is heard of it for longer than anybody waits; what was asked of it may
    /// have been done.
    #[error("the database does not answer")]
    Outage,
    /// All connections are in use, and none became free in time.
    #[error("all connections to the database are in use")]
    Busy,
    /// There was no answer in time; what was asked may have been done.
    #[error("the database did not answer in time")]
    TimedOut,
    /// There is no room for what was to be written.
    #[error("the database's disk is full")]
    DiskFull(#[source] DieselError),
    /// A statement failed.
    #[error("a statement failed")]
    Statement(#[source] DieselError),
}

/// What PostgreSQL says where its disk is full (53100), unless it was told to speak
/// another language: diesel-async does not pass the SQLSTATE on.
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
    /// Whether the database could not be reached, could not be written to, or
    /// was lost on the way.
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
                    // A standby that is not, or is no longer, the primary.
                    | DatabaseErrorKind::ReadOnlyTransaction
            ),
            DbError::Busy | DbError::Statement(_) => false,
        }
    }

    /// Why what failed is tried again: one of [`RETRY_CAUSES`].
    #[must_use]
    pub fn retry_cause(&self) -> &'static str {
        let [unavailable, transient] = RETRY_CAUSES;
        match self.is_unavailable() {
            true => unavailable,
            false => transient,
        }
    }

    /// Whether the same statements may well succeed if they are run again.
    ///
    /// diesel-async does not pass the SQLSTATE on, so a deadlock, a statement
    /// timeout and a shutdown of the server all are `Unknown`, as are faults
    /// of ours; retries are bounded, so these too come to an end.
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

    /// Whether the connection may be of no more use: whatever says that the database
    /// is away, and those that PostgreSQL says before it closes (57P01 to 57P03), which
    /// diesel-async does not tell from others. To make a connection anew costs
    /// milliseconds, and these are rare.
    #[must_use]
    pub fn may_end_connection(&self) -> bool {
        let is_unknown = matches!(
            self,
            DbError::Statement(DieselError::DatabaseError(DatabaseErrorKind::Unknown, _))
        );
        is_unknown || (self.is_unavailable() && !matches!(self, DbError::DiskFull(_)))
    }

    /// The name of the constraint that was violated.
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
