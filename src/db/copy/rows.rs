//! The tables of a database and their rows.

use std::fmt::{self, Display, Formatter};

use diesel::{
    OptionalExtension, QueryResult, QueryableByName,
    query_builder::SqlQuery,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::CopyError;
use crate::db::{
    DatabaseAddress, connect::connect, planner::raw_statement, unlimited::connect_without_timeouts,
};

/// The schema of our tables.
pub(super) const PUBLIC: &str = "public";

/// Tables with rows that the service itself creates, also in a new database.
const OWN_TABLES: [&str; 3] = [
    "__diesel_schema_migrations",
    "journal_cluster",
    "page_token_key",
];

raw_statement! {
/// Lists all tables.
const TABLES() = "
    SELECT nspname::text AS schema, relname::text AS name
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE relkind = 'r' AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
     ORDER BY 1, 2";
}

raw_statement! {
/// Returns the statement that counts the rows of each table, with the names quoted by PostgreSQL. The
/// arrays have schemas and names. Tables that are missing are left out.
const COUNT_STATEMENT(Array<Text>, Array<Text>) = "
    SELECT string_agg(format('SELECT %L AS schema, %L AS name, count(*) AS rows FROM %I.%I',
                             nspname, relname, nspname, relname),
                      ' UNION ALL ') AS statement
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE relkind = 'r'
       AND (nspname::text, relname::text) IN (SELECT * FROM unnest($1::text[], $2::text[]))
    HAVING count(*) > 0";
}

/// A table. Two schemas may have tables with one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
pub struct Table {
    /// The schema of the table.
    #[diesel(sql_type = Text)]
    pub schema: String,
    /// The name of the table.
    #[diesel(sql_type = Text)]
    pub name: String,
}

impl Table {
    /// Returns whether the service itself creates the rows of the table.
    fn is_own(&self) -> bool {
        self.schema == PUBLIC && OWN_TABLES.contains(&self.name.as_str())
    }
}

/// Shows the name, after the schema unless that is `public`.
impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Table { schema, name } = self;
        match schema == PUBLIC {
            true => f.pad(name),
            false => f.pad(&format!("{schema}.{name}")),
        }
    }
}

/// A table and the number of its rows.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct TableRows {
    /// The table.
    #[diesel(embed)]
    pub table: Table,
    /// The number of its rows.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
}

/// Lists all tables, in the order of their names.
///
/// # Errors
/// [`CopyError::Database`].
pub async fn tables(address: &DatabaseAddress) -> Result<Vec<Table>, CopyError> {
    let mut connection = connect(address).await?;
    Ok(diesel::sql_query(TABLES).load(&mut connection).await?)
}

/// Counts the rows of tables, in the order of their names. A missing table is left out.
///
/// # Errors
/// [`CopyError::Database`].
pub async fn count_rows(
    address: &DatabaseAddress,
    tables: &[Table],
) -> Result<Vec<TableRows>, CopyError> {
    let mut connection = connect_without_timeouts(address).await?;
    let counts = diesel::sql_query(COUNT_STATEMENT);
    let Some(counts) = statement(&mut connection, counts, tables).await? else {
        return Ok(Vec::new());
    };
    let mut counts: Vec<TableRows> = diesel::sql_query(counts).load(&mut connection).await?;
    counts.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(counts)
}

/// Returns a statement about tables. Returns `None` if the database has none of them.
pub(super) async fn statement(
    connection: &mut AsyncPgConnection,
    query: SqlQuery,
    tables: &[Table],
) -> QueryResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Statement {
        #[diesel(sql_type = Text)]
        statement: String,
    }
    let (schemas, names) = arrays(tables);
    let query = query
        .bind::<Array<Text>, _>(schemas)
        .bind::<Array<Text>, _>(names);
    let row: Option<Statement> = query.get_result(connection).await.optional()?;
    Ok(row.map(|row| row.statement))
}

/// Returns the schemas and the names of tables.
pub(super) fn arrays(tables: &[Table]) -> (Vec<&str>, Vec<&str>) {
    let pairs = tables
        .iter()
        .map(|it| (it.schema.as_str(), it.name.as_str()));
    pairs.unzip()
}

/// Fails unless each table has the same number of rows in the original and in the copy.
///
/// # Errors
/// [`CopyError::Differs`].
pub fn compare(original: &[TableRows], copy: &[TableRows]) -> Result<(), CopyError> {
    let differing = original.iter().filter_map(|TableRows { table, rows }| {
        let copied = rows_of(copy, table);
        (copied != *rows).then(|| format!("{table} has {copied} instead of {rows}"))
    });
    match differing.collect::<Vec<_>>() {
        differing if differing.is_empty() => Ok(()),
        differing => Err(CopyError::Differs(differing)),
    }
}

/// Returns the number of rows of a table, 0 if it is missing.
#[must_use]
pub fn rows_of(tables: &[TableRows], table: &Table) -> i64 {
    let found = tables.iter().find(|it| it.table == *table);
    found.map_or(0, |it| it.rows)
}

/// Adds up the rows of all tables, without those that the service itself creates.
#[must_use]
pub fn total(tables: &[TableRows]) -> i64 {
    let tables = tables.iter().filter(|it| !it.table.is_own());
    tables.map(|it| it.rows).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(numbers: &[(&str, &str, i64)]) -> Vec<TableRows> {
        let rows = numbers.iter().map(|(schema, name, rows)| TableRows {
            table: Table {
                schema: (*schema).to_owned(),
                name: (*name).to_owned(),
            },
            rows: *rows,
        });
        rows.collect()
    }

    #[test]
    fn a_copy_with_other_numbers_of_rows_is_an_error() {
        let original = counts(&[("public", "a", 1), ("public", "b", 2), ("other", "b", 0)]);
        let copy = counts(&[("public", "a", 1), ("public", "b", 2)]);
        assert!(compare(&original, &copy).is_ok());
        let copy = counts(&[("other", "b", 2), ("public", "a", 1), ("public", "b", 1)]);
        let error = compare(&original, &copy).unwrap_err().to_string();
        assert_eq!(
            error,
            "row counts differ: b has 1 instead of 2, other.b has 2 instead of 0"
        );
    }
}
