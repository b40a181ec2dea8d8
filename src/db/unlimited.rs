//! Connections without the timeouts of their role, for work that takes as long as the tables are large.

use diesel_async::SimpleAsyncConnection;

use super::{
    DatabaseAddress,
    connect::{Session, connect},
    migrations::MigrationError,
    planner::NO_TIMEOUTS,
};

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
