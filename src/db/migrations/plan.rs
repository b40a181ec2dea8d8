//! Plans pending migrations: their locks, estimated time and needs.
//!
//! A migration declares its locks of existing tables in comments at the top of its up.sql:
//!
//! ```text
//! -- Lock: SHARE UPDATE EXCLUSIVE on metadata_stamps: builds 1 index
//! ```
//!
//! `tests/db/migrations/plan.rs` compares them with the locks that the migration takes.

use std::time::Duration;

use diesel::{
    QueryResult, QueryableByName,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Result, applied, list::ALL};
use crate::db::{DatabaseAddress, connect::connect_to_any, planner::raw_statement};

/// The rows of a table that a scan reads per second. These rates are a part of those measured on two
/// cores with a million stamps in memory. A slow disk may take several times as long.
const SCANNED_PER_S: i64 = 2_000_000;

/// The rows that an index build handles per second while calls write to the table.
const INDEXED_PER_S: i64 = 300_000;

/// The rows per second that are written again, with their indexes.
const WRITTEN_PER_S: i64 = 50_000;

/// The modes that a migration may declare, and what each blocks. Source:
/// <https://www.postgresql.org/docs/current/explicit-locking.html>.
const BLOCKED: [(&str, &str); 6] = [
    ("ACCESS EXCLUSIVE", "reads and writes"),
    ("EXCLUSIVE", "writes, and reads that lock rows"),
    ("SHARE ROW EXCLUSIVE", "writes"),
    ("SHARE", "writes"),
    (
        "SHARE UPDATE EXCLUSIVE",
        "no reads and no writes, only VACUUM and changes of the schema",
    ),
    ("ROW EXCLUSIVE", "writes of the same rows"),
];

raw_statement! {
/// Selects the size and the owner of some tables.
const TABLES(Array<Text>) = "
    SELECT class.relname::text AS name,
           CASE WHEN class.reltuples >= 0 AND class.relpages > 0
                THEN class.reltuples / class.relpages * size.pages
                ELSE size.pages * 40 END::bigint AS rows,
           pg_table_size(class.oid) AS bytes,
           coalesce(pg_indexes_size(class.oid) / nullif(size.indexes, 0), 0)::bigint AS index_bytes,
           pg_get_userbyid(class.relowner)::text AS owner,
           pg_has_role(class.relowner, 'USAGE') AS is_owner
      FROM pg_class AS class
     CROSS JOIN LATERAL (
           SELECT pg_relation_size(class.oid) / current_setting('block_size')::bigint AS pages,
                  (SELECT count(*) FROM pg_index WHERE indrelid = class.oid) AS indexes) AS size
     WHERE class.relnamespace = to_regnamespace(quote_ident(current_schema()))
       AND class.relkind = 'r' AND class.relname = ANY($1)";
}

raw_statement! {
/// Selects whether the role may create tables and indexes, and where.
const ROLE() = "
    SELECT current_user::text AS role, current_schema()::text AS schema,
           coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create";
}

/// The plan of all pending migrations.
#[derive(Debug)]
pub struct Plan {
    /// The role that would migrate.
    pub role: Role,
    /// The pending migrations, in their order.
    pub migrations: Vec<PlannedMigration>,
}

/// The role that would migrate.
#[derive(Debug, QueryableByName)]
pub struct Role {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub role: String,
    /// The schema in which tables are created; `None` if the search path names none that exists.
    #[diesel(sql_type = Nullable<Text>)]
    pub schema: Option<String>,
    /// Whether the role may create tables and indexes there.
    #[diesel(sql_type = Bool)]
    pub may_create: bool,
}

/// What a pending migration would do.
#[derive(Debug)]
pub struct PlannedMigration {
    /// Its name: `001_create_workflow_executions`.
    pub name: &'static str,
    /// Whether all statements run in one transaction.
    pub runs_in_transaction: bool,
    /// Its locks of existing tables.
    pub locks: Vec<PlannedLock>,
}

/// A lock of an existing table, and what is done under it.
#[derive(Debug)]
pub struct PlannedLock {
    /// What the migration declares.
    pub declared: Lock,
    /// The table; `None` if an earlier pending migration creates it.
    pub table: Option<Table>,
}

/// A lock that a migration declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// PostgreSQL's name of the mode, such as `SHARE`.
    pub mode: &'static str,
    /// The table.
    pub table: &'static str,
    /// What the migration does with the rows of the table.
    pub work: Work,
}

/// What a migration does with the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It reads no rows.
    Nothing,
    /// It reads all rows once.
    Read,
    /// It builds this many indexes.
    Build(u32),
    /// It writes all rows again.
    Write,
}

/// An existing table.
#[derive(Debug, Clone, QueryableByName)]
pub struct Table {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The number of rows, as PostgreSQL's planner estimates it.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// Its size without indexes.
    #[diesel(sql_type = BigInt)]
    pub bytes: i64,
    /// The mean size of its indexes.
    #[diesel(sql_type = BigInt)]
    pub index_bytes: i64,
    /// The role that owns it.
    #[diesel(sql_type = Text)]
    pub owner: String,
    /// Whether the role that would migrate has the owner's rights.
    #[diesel(sql_type = Bool)]
    pub is_owner: bool,
}

impl Lock {
    /// Parses a line such as `-- Lock: SHARE on fsm_transitions: builds 2 indexes`.
    fn parse(line: &'static str) -> Option<Self> {
        let (mode, rest) = line.strip_prefix("-- Lock: ")?.split_once(" on ")?;
        let (mode, _) = BLOCKED.into_iter().find(|(known, _)| *known == mode)?;
        let (table, work) = rest.split_once(": ")?;
        let work = match work.split(' ').collect::<Vec<_>>().as_slice() {
            ["reads", "no", "rows"] => Work::Nothing,
            ["reads", "all", "rows"] => Work::Read,
            ["updates" | "rewrites", "all", "rows"] => Work::Write,
            ["builds", number, "index" | "indexes"] => Work::Build(number.parse().ok()?),
            _ => return None,
        };
        Some(Self { mode, table, work })
    }

    /// Returns what other sessions cannot do meanwhile.
    #[must_use]
    pub fn blocks(&self) -> &'static str {
        let known = BLOCKED.into_iter().find(|(mode, _)| *mode == self.mode);
        known.map_or("", |(_, blocked)| blocked)
    }
}

impl Table {
    /// Returns about how long some work takes.
    #[must_use]
    pub fn time(&self, work: Work) -> Duration {
        let seconds = match work {
            Work::Nothing => 0,
            Work::Read => self.rows / SCANNED_PER_S,
            Work::Build(indexes) => i64::from(indexes) * self.rows / INDEXED_PER_S,
            Work::Write => self.rows / WRITTEN_PER_S,
        };
        Duration::from_secs(seconds.unsigned_abs())
    }

    /// Returns about how much disk space some work takes. An index build needs the size of the index
    /// once more to sort.
    #[must_use]
    pub fn disk(&self, work: Work) -> i64 {
        match work {
            Work::Nothing | Work::Read => 0,
            Work::Build(indexes) => (i64::from(indexes) + 1) * self.index_bytes,
            Work::Write => self.bytes,
        }
    }
}

/// Returns what the pending migrations would do. Only reads, so it works on a standby and while the
/// service runs.
///
/// # Errors
/// [`MigrationError::Connect`](super::MigrationError) and errors of the queries.
pub async fn plan(address: &DatabaseAddress) -> Result<Plan> {
    let mut connection = connect_to_any(address).await?;
    let applied = applied(&mut connection).await?;
    let mut migrations = Vec::new();
    for migration in ALL {
        if applied.contains_key(migration.version()) {
            continue;
        }
        migrations.push(PlannedMigration {
            name: migration.name,
            runs_in_transaction: migration.runs_in_transaction,
            locks: planned_locks(&mut connection, declared_locks(migration.up)).await?,
        });
    }
    let role = diesel::sql_query(ROLE).get_result(&mut connection).await?;
    Ok(Plan { role, migrations })
}

/// Returns the locks that an up.sql declares.
fn declared_locks(up: &'static str) -> Vec<Lock> {
    up.lines().filter_map(Lock::parse).collect()
}

async fn planned_locks(
    connection: &mut AsyncPgConnection,
    declared: Vec<Lock>,
) -> QueryResult<Vec<PlannedLock>> {
    let names: Vec<_> = declared.iter().map(|lock| lock.table).collect();
    let query = diesel::sql_query(TABLES).bind::<Array<Text>, _>(names);
    let tables: Vec<Table> = query.load(connection).await?;
    let locks = declared.into_iter().map(|declared| PlannedLock {
        table: tables.iter().find(|it| it.name == declared.table).cloned(),
        declared,
    });
    Ok(locks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declaration_is_understood() {
        for migration in ALL {
            let lines = migration.up.lines();
            let lines = lines.filter(|line| line.to_lowercase().starts_with("-- lock"));
            let declared = declared_locks(migration.up);
            assert_eq!(declared.len(), lines.count(), "{}", migration.name);
        }
    }
}
