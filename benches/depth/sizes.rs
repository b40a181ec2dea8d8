//! The disk space of the tables of the deep database.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text},
};
use diesel_async::RunQueryDsl;

use crate::{Result, cluster::Cluster};

/// Selects the number of rows and the sizes of each table with rows. ANALYZE has just counted them.
const SIZES: &str = "
    SELECT relname::text AS name, reltuples::bigint AS rows,
           pg_table_size(oid) AS bytes, pg_indexes_size(oid) AS index_bytes
      FROM pg_class
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND reltuples > 100
     ORDER BY reltuples DESC, relname";

/// The disk space of a table.
#[derive(Debug, QueryableByName)]
pub struct TableSize {
    /// The table.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The number of rows.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// The bytes of the rows.
    #[diesel(sql_type = BigInt)]
    pub bytes: i64,
    /// The bytes of all indexes.
    #[diesel(sql_type = BigInt)]
    pub index_bytes: i64,
}

/// Returns the sizes of all tables with rows.
pub async fn sizes(cluster: &Cluster, database: &str) -> Result<Vec<TableSize>> {
    let mut connection = cluster.connect(database).await?;
    Ok(diesel::sql_query(SIZES).load(&mut connection).await?)
}
