//! Connections without the timeouts of their role, for work that takes as long as the tables are large.

use diesel_async::SimpleAsyncConnection;

use super::{
    DatabaseAddress,
    connect::{Session, connect},
    migrations::MigrationError,
};

/// Lifts the timeouts that `ALTER ROLE … SET` or the database gives to a session. Only PostgreSQL 17 has
/// `transaction_timeout`.
const NO_TIMEOUTS: &str = "SELECT set_config(name, '0', false) FROM pg_settings
     WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
                    'idle_session_timeout', 'idle_in_transaction_session_timeout')";

/// Connects to a database that can be written to, without timeouts.
///
/// # Errors
/// [`MigrationError::Connect`] and [`MigrationError::Statement`].
pub(super) async fn connect_without_timeouts(
    address: &DatabaseAddress,
) -> Result<Session, MigrationError> {
    let mut connection = connect(address).await?;
    connection.batch_execute(NO_TIMEOUTS).await?;
    Ok(connection)
}
