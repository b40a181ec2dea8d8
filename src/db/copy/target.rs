//! Checks of a database that is to take a copy.

use diesel::{
    QueryResult, QueryableByName,
    sql_types::{Array, Bool, Integer, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    CopyError, Table,
    rows::{PUBLIC, arrays},
};
use crate::db::{
    DatabaseAddress, connect::connect, planner::raw_statement, pooler_check::shares_sessions,
};

/// The oldest major version that bridgebook supports.
const OLDEST: i32 = 14;

raw_statement! {
/// Returns what decides whether a database can take a copy. The arrays have the schemas and names of our
/// tables.
const TARGET(Array<Text>, Array<Text>) = "
    SELECT current_setting('server_version_num')::integer / 10000 AS major,
           current_setting('server_encoding') AS encoding,
           current_schema()::text AS schema,
           coalesce(has_schema_privilege(to_regnamespace('public')::oid, 'CREATE'), false) AS may_create,
           quote_ident(current_user) AS role,
           (SELECT relname::text
              FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
             WHERE (nspname::text, relname::text) IN (SELECT * FROM unnest($1::text[], $2::text[]))
             ORDER BY 1 LIMIT 1) AS existing";
}

/// Checks that a database can take the tables of a PostgreSQL with the major version `major`.
///
/// # Errors
/// Every [`CopyError`] about the target.
pub async fn check_target(
    address: &DatabaseAddress,
    tables: &[Table],
    major: u32,
) -> Result<(), CopyError> {
    let mut connection = connect(address).await?;
    if shares_sessions(address).await {
        return Err(CopyError::SharedSessions);
    }
    let target = target(&mut connection, tables).await?;
    // A newer pg_dump sets parameters that an older server does not know.
    let expected = i32::try_from(major).unwrap_or(i32::MAX).max(OLDEST);
    if target.major < expected {
        let major = target.major;
        return Err(CopyError::Major { major, expected });
    }
    if target.encoding != "UTF8" {
        return Err(CopyError::Encoding(target.encoding));
    }
    if target.schema.as_deref() != Some(PUBLIC) {
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

/// Properties of a target database.
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

async fn target(connection: &mut AsyncPgConnection, tables: &[Table]) -> QueryResult<Target> {
    let (schemas, names) = arrays(tables);
    diesel::sql_query(TARGET)
        .bind::<Array<Text>, _>(schemas)
        .bind::<Array<Text>, _>(names)
        .get_result(connection)
        .await
}
