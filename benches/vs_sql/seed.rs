//! Inserts the rows that must exist before a measurement.

use diesel::sql_types;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use crate::{Result, stage::Stage};

/// Inserts rows with the numbers from 1 to `last`, which is `$1` in the statement.
pub async fn seed(stage: &Stage, database: &str, statement: &'static str, last: u64) -> Result<()> {
    let statement = diesel::sql_query(statement);
    let statement = statement.bind::<sql_types::BigInt, _>(i64::try_from(last)?);
    let mut connection = AsyncPgConnection::establish(&stage.url(database)).await?;
    statement.execute(&mut connection).await?;
    Ok(())
}
