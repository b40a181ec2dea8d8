//! Checks of a database that is copied into another one: its tables, their rows, its migrations.

mod rows;
mod target;

use std::collections::{BTreeSet, HashSet};

use diesel_async::SimpleAsyncConnection;

use self::rows::statement;
pub use self::{
    rows::{Table, TableRows, compare, count_rows, rows_of, tables, total},
    target::check_target,
};
use super::{
    DatabaseAddress,
    connect::connect,
    journal_cluster,
    migrations::{self, MigrationError},
    planner::raw_statement,
    unlimited::connect_without_timeouts,
};

raw_statement! {
/// Returns the statement that collects the statistics of tables, with the names quoted by PostgreSQL.
/// The arrays have schemas and names. Tables that are missing are left out.
const ANALYZE_STATEMENT(Array<Text>, Array<Text>) = "
    SELECT 'ANALYZE ' || string_agg(format('%I.%I', nspname, relname), ', ') AS statement
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE relkind = 'r'
       AND (nspname::text, relname::text) IN (SELECT * FROM unnest($1::text[], $2::text[]))
    HAVING count(*) > 0";
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
    /// A pooler shares sessions between clients.
    #[error(
        "the connection pooler in front of the target shares sessions between clients, which loses \
         session settings; set pool_mode = session, or name the server itself"
    )]
    SharedSessions,
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
    /// The copy has other numbers of rows.
    #[error("row counts differ: {}", .0.join(", "))]
    Differs(Vec<String>),
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

/// Checks that a copied database is one of bridgebook, and not of a newer version.
///
/// # Errors
/// [`CopyError::NotOurs`], [`CopyError::Newer`], [`CopyError::Database`].
pub async fn check_migrations(address: &DatabaseAddress) -> Result<(), CopyError> {
    let mut connection = connect(address).await?;
    let applied = migrations::applied(&mut connection).await?;
    let known = migrations::status_on(&mut connection).await?.into_iter();
    let known: HashSet<String> = known.map(|migration| migration.version).collect();
    let versions: BTreeSet<String> = applied.into_keys().collect();
    let (known, unknown): (Vec<_>, Vec<_>) = versions
        .into_iter()
        .partition(|version| known.contains(version));
    match (known.is_empty(), unknown.is_empty()) {
        (true, _) => Err(CopyError::NotOurs),
        (false, false) => Err(CopyError::Newer(unknown)),
        (false, true) => Ok(()),
    }
}

/// Makes a copied database ready: applies pending migrations, adopts the journal, and collects the
/// planner's statistics of the copied tables.
///
/// # Errors
/// [`CopyError::Database`].
pub async fn finish(address: &DatabaseAddress, tables: &[Table]) -> Result<(), CopyError> {
    migrations::up(address).await?;
    journal_cluster::adopt(address).await?;
    let mut connection = connect_without_timeouts(address).await?;
    let analyze = diesel::sql_query(ANALYZE_STATEMENT);
    if let Some(analyze) = statement(&mut connection, analyze, tables).await? {
        connection.batch_execute(&analyze).await?;
    }
    Ok(())
}
