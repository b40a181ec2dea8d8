//! The name of an expired row, for the log.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{deleted_bridges, expired::ExpiredGroup};
use crate::{
    db::{DbError, Query, planner::register},
    domain::error::Result,
    ops::retention::model::Table,
};

/// Reads the key of the oldest expired row of a group after the first few: its columns, separated by
/// slashes. `None` if there is no such row any more.
pub struct RowName<'a> {
    /// The group.
    pub expired: &'a ExpiredGroup,
    /// The number of older rows.
    pub skipped: i64,
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

fn select_name(table: Table) -> String {
    let spec = table.spec();
    let is_expired = spec.is_expired();
    let (table, key, age) = (spec.table, spec.key, spec.age);
    format!(
        "SELECT concat_ws('/', {key}) AS name FROM {table} WHERE {is_expired}
          ORDER BY {age}, {key} LIMIT 1 OFFSET $4"
    )
}

impl RowName<'_> {
    fn select(&self) -> String {
        match self.expired.is_of_deleted_bridges() {
            true => deleted_bridges::NAME.to_owned(),
            false => select_name(self.expired.table),
        }
    }
}

impl Query for RowName<'_> {
    type Answer = Option<String>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let RowName { expired, skipped } = self;
        let named = diesel::sql_query(self.select())
            .bind::<Text, _>(&expired.group.namespace)
            .bind::<Text, _>(&expired.group.part)
            .bind::<BigInt, _>(expired.max_age_seconds)
            .bind::<BigInt, _>(*skipped);
        let named: Option<Named> = named.get_result(connection).await.optional()?;
        Ok(Ok(named.map(|row| row.name)))
    }
}

/// Registers the statement of each table.
macro_rules! register_tables {
    ($($table:ident),+) => {$(
        register!(
            concat!("RowName ", stringify!($table)), false, [Text, Text, BigInt, BigInt],
            || select_name(Table::$table)
        );
    )+};
}

register_tables!(Workflows, Transitions, Batches, Stamps);
