//! The embedded migrations: applying, reverting, and the status of the schema.
//!
//! A migration that builds an index on a growing table says so in its metadata.toml. It then runs outside
//! of a transaction, one statement at a time. See [`concurrent`].

mod concurrent;
mod error;
mod list;
mod lock;
mod plan;
mod progress;
mod run;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl,
    dsl::exists,
    sql_types::{Bool, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

pub(super) use self::lock::acquire as acquire_lock;
pub use self::{
    error::MigrationError,
    plan::{Lock, Plan, PlannedLock, PlannedMigration, Role, Table, Work, plan},
    run::{down, redo, up},
};

use self::list::ALL;
use super::{DatabaseAddress, connect::connect_to_any};

type Result<T, E = MigrationError> = std::result::Result<T, E>;

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
    Ok(status_on(&mut session).await?)
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
/// Errors of the queries.
pub async fn status_on(connection: &mut AsyncPgConnection) -> diesel::QueryResult<Vec<Status>> {
    let applied = applied(connection).await?;
    let status = ALL.iter().map(|migration| Status {
        name: migration.name.to_owned(),
        version: migration.version().to_owned(),
        applied_at: applied.get(migration.version()).copied(),
    });
    Ok(status.collect())
}

/// Returns the applied versions, and when they were applied. Only reads, so it works on a
/// standby, where Diesel would first try to create its table.
pub(super) async fn applied(
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

/// Returns the version of the newest embedded migration.
#[must_use]
pub fn newest() -> &'static str {
    ALL.last().map_or("", list::Migration::version)
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
