//! The SQLSTATE, which identifies the kind of an error. Source of the codes:
//! <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// The codes that the service knows.
pub(super) const DEADLOCK_DETECTED: &str = "40P01";
pub(super) const DISK_FULL: &str = "53100";
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
pub(super) const QUERY_CANCELED: &str = "57014";
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
pub(super) const UNDEFINED_TABLE: &str = "42P01";

/// The prefix of the codes with which PostgreSQL ends a connection: 57P01 to 57P05.
const CONNECTION_ENDED: &str = "57P";

/// The bytes of a code.
const LENGTH: usize = 5;

/// Returns the SQLSTATE of an error of PostgreSQL, and `None` for other errors. The connections of
/// [`connect`](super::connect) put it before the message.
pub(super) fn sql_state(error: &DieselError) -> Option<&str> {
    let DieselError::DatabaseError(_, information) = error else {
        return None;
    };
    let (code, rest) = information.message().split_at_checked(LENGTH)?;
    let is_code = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
    (code.bytes().all(is_code) && rest.starts_with(": ")).then_some(code)
}

/// Returns whether PostgreSQL or the network ended the connection.
pub(super) fn is_connection_lost(error: &DieselError) -> bool {
    let is_lost = matches!(
        error,
        DieselError::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _
        )
    );
    is_lost || sql_state(error).is_some_and(|code| code.starts_with(CONNECTION_ENDED))
}
