//! The embedded migrations: applying, reverting, and the status of the schema.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl,
    dsl::exists,
    migration::{Migration, MigrationSource},
    pg::Pg,
    result::{DatabaseErrorKind, Error as DieselError},
    sql_types::{BigInt, Bool, Text, Timestamptz},
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{
    DatabaseAddress,
    connect::{connect, connect_to_any},
    sql_state::{CONNECTION_ENDED, LOCK_NOT_AVAILABLE, sql_state},
};
use crate::util::error_chain::error_chain;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The advisory lock of a process that migrates or repairs the journal, so that replicas that
/// start at once take turns. The number is arbitrary.
pub(super) const LOCK: i64 = 0x6272_6964_6765_626b;

/// How long a migration waits for the lock of a table. All later statements on the table
/// queue behind it for as long.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";
/// The pause before the next attempt, in which the queued statements run.
const LOCK_PAUSE: Duration = Duration::from_secs(3);

/// A failure of migrating, or of reading the status.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be reached.
    #[error("cannot connect to the database")]
    Connect(#[from] diesel::ConnectionError),
    /// A statement around the migrations failed.
    #[error("a statement failed")]
    Statement(#[from] diesel::result::Error),
    /// The connection was lost during a migration.
    #[error("the connection was lost during a migration")]
    ConnectionLost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A migration failed. Those before it are applied.
    #[error("a migration failed")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl MigrationError {
    /// Returns whether the database was unreachable or the connection was lost, so that a retry may succeed.
    /// A retry continues with the first migration that is not applied.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            MigrationError::Connect(_) | MigrationError::ConnectionLost(_) => true,
            MigrationError::Statement(error) => is_connection_lost(error),
            MigrationError::Migration(_) => false,
        }
    }
}

fn is_connection_lost(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, _) => {
            sql_state(error).is_some_and(|code| code.starts_with(CONNECTION_ENDED))
        }
        DieselError::DatabaseError(kind, _) => matches!(
            kind,
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand
        ),
        _ => false,
    }
}

type Result<T> = std::result::Result<T, MigrationError>;

/// The status of one migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name: `001_create_workflow_executions`.
    pub name: String,
    /// Its number: `001`.
    pub version: String,
    /// When it was applied; `None` if it is pending.
    pub applied_at: Option<DateTime<Utc>>,
}

impl Status {
    /// Returns a description made of its name: `Create workflow executions`.
    #[must_use]
    pub fn description(&self) -> String {
        let words = self.name.split_once('_').map_or("", |(_, words)| words);
        let words = words.replace('_', " ");
        let mut chars = words.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(chars).collect()
    }
}

/// Returns the status of every embedded migration, in order.
///
/// # Errors
/// [`MigrationError::Connect`], and the errors of [`status_on`].
pub async fn status(address: &DatabaseAddress) -> Result<Vec<Status>> {
    let mut session = connect_to_any(address).await?;
    status_on(&mut session).await
}

/// Returns the names of pending migrations.
///
/// # Errors
/// The errors of [`status`].
pub async fn pending(address: &DatabaseAddress) -> Result<Vec<String>> {
    let all = status(address).await?.into_iter();
    let pending = all.filter(|migration| migration.applied_at.is_none());
    Ok(pending.map(|migration| migration.name).collect())
}

/// Returns the same as [`status`], on an open connection.
///
/// # Errors
/// [`MigrationError::Statement`] and [`MigrationError::Migration`].
pub async fn status_on(connection: &mut AsyncPgConnection) -> Result<Vec<Status>> {
    let applied = applied(connection).await?;
    let migrations = embedded()?.into_iter();
    Ok(migrations
        .map(|migration| {
            let version = migration.name().version().to_string();
            Status {
                name: migration.name().to_string(),
                applied_at: applied.get(&version).copied(),
                version,
            }
        })
        .collect())
}

/// Returns the applied versions, and when they were applied. Only reads, so it works on a
/// standby, where Diesel would first try to create its table.
async fn applied(
    connection: &mut AsyncPgConnection,
) -> diesel::QueryResult<HashMap<String, DateTime<Utc>>> {
    #[derive(diesel::QueryableByName)]
    struct Table {
        #[diesel(sql_type = Bool)]
        exists: bool,
    }
    #[derive(diesel::QueryableByName)]
    struct Version {
        #[diesel(sql_type = Text)]
        version: String,
        #[diesel(sql_type = Timestamptz)]
        applied_at: DateTime<Utc>,
    }
    let table = "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS exists";
    let table: Table = diesel::sql_query(table).get_result(connection).await?;
    if !table.exists {
        return Ok(HashMap::new());
    }
    // Diesel stores the time without a zone. It is UTC, to which Diesel sets its sessions.
    let versions = "SELECT version::text AS version, run_on AT TIME ZONE 'UTC' AS applied_at
                      FROM __diesel_schema_migrations";
    let versions: Vec<Version> = diesel::sql_query(versions).load(connection).await?;
    let versions = versions.into_iter();
    Ok(versions.map(|row| (row.version, row.applied_at)).collect())
}

/// Applies all pending migrations, and returns their versions. If none is pending, it only reads, and
/// needs no right to create anything.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn up(address: &DatabaseAddress) -> Result<Vec<String>> {
    if pending(address).await?.is_empty() {
        return Ok(Vec::new());
    }
    locked(address, |harness| {
        let mut applied = Vec::new();
        while harness.has_pending_migration(MIGRATIONS)? {
            applied.push(apply_next(harness)?);
        }
        Ok(applied)
    })
    .await
}

/// Reverts the last migration, and returns its version.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn down(address: &DatabaseAddress) -> Result<String> {
    locked(address, revert_last).await
}

/// Reverts the last migration and applies it again. Returns its version.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn redo(address: &DatabaseAddress) -> Result<String> {
    locked(address, |harness| {
        revert_last(harness)?;
        apply_next(harness)
    })
    .await
}

fn apply_next(harness: &mut Harness) -> diesel::migration::Result<String> {
    retry_locked(|| Ok(harness.run_next_migration(MIGRATIONS)?.to_string()))
}

fn revert_last(harness: &mut Harness) -> diesel::migration::Result<String> {
    retry_locked(|| Ok(harness.revert_last_migration(MIGRATIONS)?.to_string()))
}

/// Runs `work` under the advisory lock, so that no other process migrates meanwhile.
async fn locked<T: Send + 'static>(
    address: &DatabaseAddress,
    work: impl FnOnce(&mut Harness) -> diesel::migration::Result<T> + Send + 'static,
) -> Result<T> {
    let mut connection = connect(address).await?;
    diesel::sql_query("SELECT pg_advisory_lock($1)")
        .bind::<BigInt, _>(LOCK)
        .execute(&mut *connection)
        .await?;
    connection.batch_execute(LOCK_TIMEOUT).await?;
    let (connection, _driver) = connection.into_parts();
    // PostgreSQL releases the lock when the connection closes.
    blocking(connection, work).await
}

/// Retries a step while another session locks its tables. Blocks.
#[expect(clippy::disallowed_methods, reason = "runs on a thread of its own")]
fn retry_locked<T>(
    mut step: impl FnMut() -> diesel::migration::Result<T>,
) -> diesel::migration::Result<T> {
    loop {
        match step() {
            // Diesel's error has only a text, to which `connect` adds the code.
            Err(error) if error_chain(&*error).contains(LOCK_NOT_AVAILABLE) => {
                let retry_in_s = LOCK_PAUSE.as_secs();
                tracing::warn!(retry_in_s, "migration waits for a table lock");
                std::thread::sleep(LOCK_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Runs Diesel's migrations, which block, on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    connection: AsyncPgConnection,
    work: impl FnOnce(&mut Harness) -> diesel::migration::Result<T> + Send + 'static,
) -> Result<T> {
    let task = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        (work(&mut harness), harness.into_inner())
    });
    let finished = task.await;
    let (result, mut connection) =
        finished.map_err(|panic| MigrationError::Migration(panic.into()))?;
    match result {
        Ok(value) => Ok(value),
        // Diesel's error does not tell a lost connection from an invalid migration.
        Err(error) => match connection.batch_execute("ROLLBACK").await {
            Ok(()) => Err(MigrationError::Migration(error)),
            Err(_) => Err(MigrationError::ConnectionLost(error)),
        },
    }
}

type Harness = AsyncMigrationHarness<AsyncPgConnection>;

fn embedded() -> Result<Vec<Box<dyn Migration<Pg>>>> {
    let mut migrations =
        MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(MigrationError::Migration)?;
    migrations.sort_unstable_by(|a, b| a.name().version().cmp(&b.name().version()));
    Ok(migrations)
}

/// Returns the version of the newest embedded migration.
///
/// # Errors
/// [`MigrationError::Migration`].
pub fn newest() -> Result<String> {
    let migrations = embedded()?;
    let newest = migrations
        .last()
        .map(|migration| migration.name().version().to_string());
    Ok(newest.unwrap_or_default())
}

diesel::table! {
    /// Diesel's table of applied migrations, which schema.rs leaves out.
    __diesel_schema_migrations (version) {
        /// The migration's version.
        version -> Text,
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// Returns a setting of the session.
    fn current_setting(name: Text) -> Text;
}

/// Whether the service can use a database.
#[derive(Debug, Clone, Copy, diesel::Queryable)]
pub struct SchemaStatus {
    /// Whether it accepts writes, so it is not a standby.
    pub is_writable: bool,
    /// Whether the newest migration is applied.
    pub has_newest: bool,
}

/// Checks that the migration `newest` is applied and that the database accepts writes. The
/// health check runs this often, so it is a prepared statement, not `sql_query`.
///
/// # Errors
/// Errors of the query, for example if no migration is applied at all.
pub async fn schema_status(
    connection: &mut AsyncPgConnection,
    newest: &str,
) -> diesel::QueryResult<SchemaStatus> {
    let is_writable = current_setting("transaction_read_only").eq("off");
    let has_newest = exists(__diesel_schema_migrations::table.find(newest));
    diesel::select((is_writable, has_newest))
        .get_result(connection)
        .await
}
