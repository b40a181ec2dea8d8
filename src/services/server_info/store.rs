//! All SQL about the database server itself.

use diesel::{dsl::sql, sql_types::Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::model::{DatabaseInfo, ServerInfoQuery};
use crate::{
    db::{DbError, Query, planner::raw_statement},
    domain::error::Result,
};

raw_statement! {
/// Reads the version of the database server, without what a distribution adds to it.
const VERSION() = "SELECT split_part(current_setting('server_version'), ' ', 1)";
}

impl Query for ServerInfoQuery {
    type Answer = DatabaseInfo;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let version = sql::<Text>(VERSION).get_result(connection).await?;
        Ok(Ok(DatabaseInfo { version }))
    }
}
