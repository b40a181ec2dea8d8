//! Checks of a database that is copied into another one: its tables, their rows, its migrations.

use std::collections::HashSet;

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    DatabaseAddress,
    connect::connect,
    journal_cluster,
    migrations::{self, MigrationError},
    planner::raw_statement,
};

/// The oldest major version that bridgebook supports.
const OLDEST: i32 = 14;

/// Tables with rows that the service itself creates, also in a database that nobody uses yet.
const OWN_TABLES: [&str; 3] = [
    "__diesel_schema_migrations",
    "journal_cluster",
    "page_token_key",
];

raw_statement! {
/// Returns the statement that counts the rows of each table, with the names quoted by PostgreSQL.
const COUNT_STATEMENT() = "
    SELECT string_agg(format('SELECT %L AS name, count(*) AS rows FROM %I.%I', name, schema, name),
                      ' UNION ALL ') AS statement
      FROM (SELECT nspname AS schema, relname AS name
              FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
             WHERE relkind = 'r' AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
             ORDER BY nspname, relname) tables
    HAVING count(*) > 0";
}

raw_statement! {
/// Returns whether the schema has a table of migrations.
const HAS_MIGRATIONS() = "
    SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS is_true";
}

raw_statement! {
/// Returns what decides whether a database can take a copy. The array has the names of our tables.
const TARGET(Array<Text>) = "
    SELECT current_setting('server_version_num')::integer / 10000 AS major,
           current_setting('server_encoding') AS encoding,
           current_schema()::text AS schema,
           coalesce(has_schema_privilege(to_regnamespace('public')::oid, 'CREATE'), false) AS may_create,
           current_user::text AS role,
           (SELECT relname::text FROM pg_class
             WHERE relnamespace = to_regnamespace('public')::oid AND relname = ANY($1)
             ORDER BY 1 LIMIT 1) AS existing";
}

/// A table and the number of its rows.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct TableRows {
    /// The name of the table.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The number of its rows.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
}

impl TableRows {
    /// Returns whether the service itself creates the rows of the table.
    #[must_use]
    pub fn is_own(&self) -> bool {
        OWN_TABLES.contains(&self.name.as_str())
    }
}

/// Why a database does not fit, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database cannot be read or migrated.
    #[error("cannot check the database")]
    Database(#[from] MigrationError),
    /// The database is not one of bridgebook.
    #[error("no tables of bridgebook were found in the schema public")]
    NotOurs,
    /// The database has migrations that this version does not know.
    #[error(
        "the tables come from a newer bridgebook: this version does not know the migrations {}; \
         install the newer version",
        .0.join(", ")
    )]
    Newer(Vec<String>),
    /// PostgreSQL is too old.
    #[error("the target is PostgreSQL {major}; expected {expected} or newer")]
    Major {
        /// Its major version.
        major: i32,
        /// The oldest one that can take the copy.
        expected: i32,
    },
    /// The encoding of the target cannot store every text.
    #[error("the target has the encoding {0}; create it with ENCODING 'UTF8' TEMPLATE template0")]
    Encoding(String),
    /// The role of the target uses another schema.
    #[error(
        "the role {role} of the target uses the schema {schema}, but the tables are copied into \
         public; reset its search_path"
    )]
    Schema {
        /// The role.
        role: String,
        /// The first schema of its search_path.
        schema: String,
    },
    /// The role may not create tables.
    #[error(
        "the role {0} may not create tables in the target; run as its owner: \
         GRANT CREATE ON SCHEMA public TO {0}"
    )]
    MayNotCreate(String),
    /// The target has tables of bridgebook.
    #[error(
        "the target has a table {0} already; create an empty database for the move, or drop the tables \
         of an earlier attempt"
    )]
    Existing(String),
}

/// Errors of connections and statements.
macro_rules! through_migration_error {
    ($($error:ty),+) => {
        $(impl From<$error> for CopyError {
            fn from(error: $error) -> Self {
                CopyError::Database(error.into())
            }
        })+
    };
}
through_migration_error!(diesel::ConnectionError, diesel::result::Error);

/// Counts the rows of all tables, in the order of their names.
///
/// # Errors
/// [`CopyError::Database`].
pub async fn count_rows(address: &DatabaseAddress) -> Result<Vec<TableRows>, CopyError> {
    #[derive(QueryableByName)]
    struct Statement {
        #[diesel(sql_type = Text)]
        statement: String,
    }
    let mut connection = connect(address).await?;
    let statement: Option<Statement> = diesel::sql_query(COUNT_STATEMENT)
        .get_result(&mut connection)
        .await
        .optional()?;
    let Some(Statement { statement: counts }) = statement else {
        return Ok(Vec::new());
    };
    let mut tables: Vec<TableRows> = diesel::sql_query(counts).load(&mut connection).await?;
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// Checks that a copied database is one of bridgebook, and not of a newer version.
///
/// # Errors
/// [`CopyError::NotOurs`], [`CopyError::Newer`], [`CopyError::Database`].
pub async fn check_migrations(address: &DatabaseAddress) -> Result<(), CopyError> {
    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = Bool)]
        is_true: bool,
    }
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = Text)]
        version: String,
    }
    let mut connection = connect(address).await?;
    let has_table: Answer = diesel::sql_query(HAS_MIGRATIONS)
        .get_result(&mut connection)
        .await?;
    if !has_table.is_true {
        return Err(CopyError::NotOurs);
    }
    let versions = "SELECT version::text AS version FROM __diesel_schema_migrations ORDER BY 1";
    let versions: Vec<Version> = diesel::sql_query(versions).load(&mut connection).await?;
    let known = migrations::status_on(&mut connection).await?.into_iter();
    let known: HashSet<String> = known.map(|migration| migration.version).collect();
    let (known, unknown): (Vec<_>, Vec<_>) = versions
        .into_iter()
        .map(|it| it.version)
        .partition(|version| known.contains(version));
    match (known.is_empty(), unknown.is_empty()) {
        (true, _) => Err(CopyError::NotOurs),
        (false, false) => Err(CopyError::Newer(unknown)),
        (false, true) => Ok(()),
    }
}

/// Makes a copied database ready: applies pending migrations, repairs the positions of the journal, and
/// collects the statistics of the planner.
///
/// # Errors
/// [`CopyError::Database`].
pub async fn finish(address: &DatabaseAddress) -> Result<(), CopyError> {
    migrations::up(address).await?;
    journal_cluster::adopt(address).await?;
    let mut connection = connect(address).await?;
    Ok(connection.batch_execute("ANALYZE").await?)
}

/// Checks that a database can take the tables of a PostgreSQL with the major version `major`.
///
/// # Errors
/// Every [`CopyError`] about the target.
pub async fn check_target(
    address: &DatabaseAddress,
    tables: &[TableRows],
    major: u32,
) -> Result<(), CopyError> {
    let mut connection = connect(address).await?;
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let target = target(&mut connection, &names).await?;
    // A newer pg_dump sets parameters that an older server does not know.
    let expected = i32::try_from(major).unwrap_or(i32::MAX).max(OLDEST);
    if target.major < expected {
        let major = target.major;
        return Err(CopyError::Major { major, expected });
    }
    if target.encoding != "UTF8" {
        return Err(CopyError::Encoding(target.encoding));
    }
    if target.schema.as_deref() != Some("public") {
        let schema = target.schema.unwrap_or_else(|| "(none)".to_owned());
        let role = target.role;
        return Err(CopyError::Schema { role, schema });
    }
    if !target.may_create {
        return Err(CopyError::MayNotCreate(target.role));
    }
    target
        .existing
        .map_or(Ok(()), |name| Err(CopyError::Existing(name)))
}

/// What decides whether a database can take a copy.
#[derive(QueryableByName)]
struct Target {
    #[diesel(sql_type = Integer)]
    major: i32,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Nullable<Text>)]
    schema: Option<String>,
    #[diesel(sql_type = Bool)]
    may_create: bool,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Nullable<Text>)]
    existing: Option<String>,
}

async fn target(
    connection: &mut AsyncPgConnection,
    names: &[&str],
) -> Result<Target, diesel::result::Error> {
    diesel::sql_query(TARGET)
        .bind::<Array<Text>, _>(names)
        .get_result(connection)
        .await
}
