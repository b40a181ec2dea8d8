//! The embedded migrations: applying them, taking them back, telling where the
//! schema stands.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl,
    dsl::exists,
    migration::{Migration, MigrationSource},
    pg::Pg,
    sql_types::{BigInt, Bool, Text, Timestamptz},
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connection::{connect, connect_to_any};
use crate::util::error_chain::error_chain;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The advisory lock that a process holds while it migrates, so that replicas
/// that start at once do it one after the other. The number means nothing.
const LOCK: i64 = 0x6272_6964_6765_626b;

/// How long a migration waits for a table that somebody uses: whoever comes after it
/// waits behind it for as long. And how long those have then, before it tries again.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";
const AFTER_YOU: Duration = Duration::from_secs(3);

/// What can go wrong with migrations.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database can't be reached.
    #[error("cannot connect to the database")]
    Connect(#[from] diesel::ConnectionError),
    /// A statement around the migrations failed.
    #[error("a statement failed")]
    Statement(#[from] diesel::result::Error),
    /// A migration failed; what came before it is applied.
    #[error("a migration failed")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
}

type Result<T> = std::result::Result<T, MigrationError>;

/// Where one migration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name: `001_create_workflow_executions`.
    pub name: String,
    /// Its number: `001`.
    pub version: String,
    /// When it was applied; `None` while it is pending.
    pub applied_at: Option<DateTime<Utc>>,
}

impl Status {
    /// What it does, as its name says: `Create workflow executions`.
    #[must_use]
    pub fn description(&self) -> String {
        let words = self.name.split_once('_').map_or("", |(_, words)| words);
        let words = words.replace('_', " ");
        let mut chars = words.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(chars).collect()
    }
}

/// Where every embedded migration stands, in their order.
///
/// # Errors
/// [`MigrationError::Connect`], and those of [`status_on`].
pub async fn status(url: &str) -> Result<Vec<Status>> {
    status_on(&mut connect_to_any(url).await?).await
}

/// The names of those that are not applied yet.
///
/// # Errors
/// Those of [`status`].
pub async fn pending(url: &str) -> Result<Vec<String>> {
    let all = status(url).await?.into_iter();
    let pending = all.filter(|migration| migration.applied_at.is_none());
    Ok(pending.map(|migration| migration.name).collect())
}

/// The same as [`status`] on a connection that is there already.
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

/// The versions that are applied, and when. It only reads, so that it can be
/// asked of a standby, where Diesel would create its table first.
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
    // Diesel keeps the time without its zone, which is UTC: it puts every one of
    // its connections there.
    let versions = "SELECT version::text AS version, run_on AT TIME ZONE 'UTC' AS applied_at
                      FROM __diesel_schema_migrations";
    let versions: Vec<Version> = diesel::sql_query(versions).load(connection).await?;
    let versions = versions.into_iter();
    Ok(versions.map(|row| (row.version, row.applied_at)).collect())
}

/// Applies all that are pending, and answers their versions.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn up(url: &str) -> Result<Vec<String>> {
    locked(url, |harness| {
        let mut applied = Vec::new();
        while harness.has_pending_migration(MIGRATIONS)? {
            applied.push(apply_next(harness)?);
        }
        Ok(applied)
    })
    .await
}

/// Takes back the last one, and answers its version.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn down(url: &str) -> Result<String> {
    locked(url, take_back_last).await
}

/// Takes back the last one and applies it again, and answers its version.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn redo(url: &str) -> Result<String> {
    locked(url, |harness| {
        take_back_last(harness)?;
        apply_next(harness)
    })
    .await
}

fn apply_next(harness: &mut Harness) -> diesel::migration::Result<String> {
    patiently(|| Ok(harness.run_next_migration(MIGRATIONS)?.to_string()))
}

fn take_back_last(harness: &mut Harness) -> diesel::migration::Result<String> {
    patiently(|| Ok(harness.revert_last_migration(MIGRATIONS)?.to_string()))
}

/// Runs `work` while no other process migrates.
async fn locked<T: Send + 'static>(
    url: &str,
    work: impl FnOnce(&mut Harness) -> diesel::migration::Result<T> + Send + 'static,
) -> Result<T> {
    let mut connection = connect(url).await?;
    diesel::sql_query("SELECT pg_advisory_lock($1)")
        .bind::<BigInt, _>(LOCK)
        .execute(&mut connection)
        .await?;
    connection.batch_execute(LOCK_TIMEOUT).await?;
    // The lock ends with the connection.
    blocking(connection, work).await
}

/// Does one step again and again while somebody has a lock on what it changes. Blocks.
#[expect(clippy::disallowed_methods, reason = "it has a thread of its own")]
fn patiently<T>(
    mut step: impl FnMut() -> diesel::migration::Result<T>,
) -> diesel::migration::Result<T> {
    loop {
        match step() {
            // diesel-async does not pass the SQLSTATE on (55P03).
            Err(error) if error_chain(&*error).contains("due to lock timeout") => {
                tracing::warn!("a migration waits for somebody who has a lock on its tables");
                std::thread::sleep(AFTER_YOU);
            }
            outcome => return outcome,
        }
    }
}

/// Runs Diesel's migrations, which block, where they block nobody.
async fn blocking<T: Send + 'static>(
    connection: AsyncPgConnection,
    work: impl FnOnce(&mut Harness) -> diesel::migration::Result<T> + Send + 'static,
) -> Result<T> {
    let task =
        tokio::task::spawn_blocking(move || work(&mut AsyncMigrationHarness::new(connection)));
    let result = task.await.unwrap_or_else(|panic| Err(panic.into()));
    result.map_err(MigrationError::Migration)
}

type Harness = AsyncMigrationHarness<AsyncPgConnection>;

fn embedded() -> Result<Vec<Box<dyn Migration<Pg>>>> {
    let mut migrations =
        MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(MigrationError::Migration)?;
    migrations.sort_unstable_by(|a, b| a.name().version().cmp(&b.name().version()));
    Ok(migrations)
}

/// The version of the newest embedded migration.
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
    /// Which migrations were applied: Diesel's own, which its schema.rs leaves out.
    __diesel_schema_migrations (version) {
        /// The migration's version.
        version -> Text,
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// A setting of the session.
    fn current_setting(name: Text) -> Text;
}

/// Whether a database can be used.
#[derive(Debug, Clone, Copy, diesel::Queryable)]
pub struct Standing {
    /// It can be written to: it is no standby.
    pub is_writable: bool,
    /// Its schema has the newest migration.
    pub has_newest: bool,
}

/// Whether the schema has the migration `newest` and can be written to: what
/// health asks, again and again, so it is prepared once (which `sql_query` is not).
///
/// # Errors
/// Whatever the query fails with, such as there being no migrations at all.
pub async fn standing(
    connection: &mut AsyncPgConnection,
    newest: &str,
) -> diesel::QueryResult<Standing> {
    let is_writable = current_setting("transaction_read_only").eq("off");
    let has_newest = exists(__diesel_schema_migrations::table.find(newest));
    diesel::select((is_writable, has_newest))
        .get_result(connection)
        .await
}
