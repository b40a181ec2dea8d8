//! Applies and reverts migrations.

use std::time::Duration;

use diesel::{
    ExpressionMethods, QueryDsl, QueryResult, QueryableByName,
    result::Error as DieselError,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tokio::time::sleep;

use super::{
    __diesel_schema_migrations as applied_migrations, Result, applied, concurrent,
    error::{MigrationError, is_deadlock, is_lock_timeout},
    list::{ALL, Migration, statements},
    lock, pending,
};
use crate::db::{
    DatabaseAddress,
    connect::{Session, connect},
    planner::{NO_TIMEOUTS, raw_statement},
    pooler_check::shares_sessions,
};

/// How long a migration waits for the lock of a table. All later statements on the table
/// queue behind it for as long.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";
/// The pause before the next attempt, in which the queued statements run.
const LOCK_PAUSE: Duration = Duration::from_secs(3);

raw_statement! {
/// Selects the schema of the table of applied migrations, and the one in which tables are created.
const SCHEMAS() = "
    SELECT (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass('__diesel_schema_migrations')) AS present,
           current_schema()::text AS current";
}

/// Creates the table of applied migrations as Diesel does, so that its CLI can read it.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (
         version VARCHAR(50) PRIMARY KEY NOT NULL,
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
     )";

/// Applies all pending migrations, and returns their versions. If none is pending, it only reads, and
/// needs no right to create anything.
///
/// # Errors
/// Every [`MigrationError`] but those of [`down`].
pub async fn up(address: &DatabaseAddress) -> Result<Vec<String>> {
    if pending(address).await?.is_empty() {
        return Ok(Vec::new());
    }
    let mut migrator = Migrator::open(address).await?;
    migrator.connection.batch_execute(CREATE_TABLE).await?;
    let mut versions = Vec::new();
    while let Some(migration) = migrator.first_pending().await? {
        migrator.run(migration, Direction::Up).await?;
        versions.push(migration.version().to_owned());
    }
    Ok(versions)
}

/// Reverts the last migration, and returns its version.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn down(address: &DatabaseAddress) -> Result<String> {
    let migration = Migrator::open(address).await?.revert_last().await?;
    Ok(migration.version().to_owned())
}

/// Reverts the last migration and applies it again. Returns its version.
///
/// # Errors
/// Every [`MigrationError`].
pub async fn redo(address: &DatabaseAddress) -> Result<String> {
    let mut migrator = Migrator::open(address).await?;
    let migration = migrator.revert_last().await?;
    migrator.run(migration, Direction::Up).await?;
    Ok(migration.version().to_owned())
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

/// A connection with the advisory lock, so that no other process migrates meanwhile.
struct Migrator<'a> {
    address: &'a DatabaseAddress,
    connection: Session,
}

impl<'a> Migrator<'a> {
    async fn open(address: &'a DatabaseAddress) -> Result<Self> {
        if shares_sessions(address).await {
            return Err(MigrationError::SharedSessions);
        }
        let mut connection = connect(address).await?;
        connection.batch_execute(NO_TIMEOUTS).await?;
        lock::acquire(&mut connection).await?;
        require_one_schema(&mut connection).await?;
        Ok(Self {
            address,
            connection,
        })
    }

    async fn first_pending(&mut self) -> Result<Option<&'static Migration>> {
        let applied = applied(&mut self.connection).await?;
        let mut pending = ALL.iter().filter(|it| !applied.contains_key(it.version()));
        Ok(pending.next())
    }

    async fn revert_last(&mut self) -> Result<&'static Migration> {
        let applied = applied(&mut self.connection).await?;
        let last = applied.into_keys().max();
        let last = last.ok_or(MigrationError::NoneApplied)?;
        let migration = ALL.iter().find(|it| it.version() == last);
        let migration = migration.ok_or(MigrationError::UnknownVersion(last))?;
        self.run(migration, Direction::Down).await?;
        Ok(migration)
    }

    async fn run(&mut self, migration: &'static Migration, direction: Direction) -> Result<()> {
        let name = migration.name;
        let done = match migration.runs_in_transaction {
            true => self.run_in_transaction(migration, direction).await,
            false => self.run_concurrently(migration, direction).await,
        };
        let Err(source) = done else {
            return Ok(());
        };
        // The error of a statement does not tell a lost connection from an invalid migration.
        match self.connection.batch_execute("ROLLBACK").await {
            Ok(()) => Err(MigrationError::Migration { name, source }),
            Err(_) => Err(MigrationError::ConnectionLost { name, source }),
        }
    }

    /// Runs all statements in one transaction.
    async fn run_in_transaction(
        &mut self,
        migration: &'static Migration,
        direction: Direction,
    ) -> QueryResult<()> {
        self.connection.batch_execute(LOCK_TIMEOUT).await?;
        loop {
            let transaction = self.connection.transaction(async |connection| {
                connection.batch_execute(text(migration, direction)).await?;
                record(connection, migration, direction).await
            });
            let outcome: QueryResult<()> = transaction.await;
            // Another session may get the lock of one table, and wait for that of another.
            if outcome.as_ref().is_err_and(is_deadlock) {
                tracing::warn!("a deadlock ended the migration, trying again");
                sleep(LOCK_PAUSE).await;
            } else if !is_retried(&outcome).await {
                return outcome;
            }
        }
    }

    /// Runs each statement on its own. Interrupted and run again, it has the same result. A migration that
    /// is reverted in part counts as pending, so that `migrate up` completes it again.
    async fn run_concurrently(
        &mut self,
        migration: &'static Migration,
        direction: Direction,
    ) -> QueryResult<()> {
        if matches!(direction, Direction::Down) {
            record(&mut self.connection, migration, direction).await?;
        }
        for statement in statements(text(migration, direction)) {
            self.connection.batch_execute(LOCK_TIMEOUT).await?;
            loop {
                let outcome =
                    concurrent::execute(&mut self.connection, self.address, statement).await;
                if !is_retried(&outcome).await {
                    outcome?;
                    break;
                }
            }
        }
        match direction {
            Direction::Up => record(&mut self.connection, migration, direction).await,
            Direction::Down => Ok(()),
        }
    }
}

/// Fails if new tables would be created in another schema than that of the present ones, which they would
/// hide.
async fn require_one_schema(connection: &mut AsyncPgConnection) -> Result<()> {
    #[derive(QueryableByName)]
    struct Schemas {
        #[diesel(sql_type = Nullable<Text>)]
        present: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        current: Option<String>,
    }
    let schemas: Schemas = diesel::sql_query(SCHEMAS).get_result(connection).await?;
    match (schemas.present, schemas.current) {
        (Some(present), Some(current)) if present != current => {
            Err(MigrationError::OtherSchema { present, current })
        }
        _ => Ok(()),
    }
}

fn text(migration: &Migration, direction: Direction) -> &'static str {
    match direction {
        Direction::Up => migration.up,
        Direction::Down => migration.down,
    }
}

/// Writes into Diesel's table that a migration is applied or reverted.
async fn record(
    connection: &mut AsyncPgConnection,
    migration: &Migration,
    direction: Direction,
) -> QueryResult<()> {
    let version = migration.version();
    match direction {
        Direction::Up => {
            let row = applied_migrations::version.eq(version);
            let insert = diesel::insert_into(applied_migrations::table).values(row);
            insert.execute(connection).await?;
        }
        Direction::Down => {
            let row = applied_migrations::table.find(version);
            diesel::delete(row).execute(connection).await?;
        }
    }
    Ok(())
}

/// Returns whether to try again because another session locks a table, after a pause.
async fn is_retried(outcome: &Result<(), DieselError>) -> bool {
    let is_retried = outcome.as_ref().is_err_and(is_lock_timeout);
    if is_retried {
        let retry_in_s = LOCK_PAUSE.as_secs();
        tracing::warn!(retry_in_s, "migration waits for a table lock");
        sleep(LOCK_PAUSE).await;
    }
    is_retried
}
