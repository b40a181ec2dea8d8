//! Finding the groups of rows that may expire.

use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::expired::Group;
use crate::{
    db::{
        DbError, Query,
        planner::{lateral, register},
    },
    domain::error::Result,
    ops::retention::model::Table,
};

/// Finds the groups of a table. Goes from one group to the next by the index, however many
/// rows each has.
pub struct PruneTargets(pub Table);

fn select_targets(table: Table) -> String {
    if table == Table::Transitions {
        return TRANSITION_TARGETS.to_owned();
    }
    let table = table.as_str();
    format!(
        "WITH RECURSIVE it AS (
             (SELECT namespace FROM {table} ORDER BY namespace LIMIT 1)
              UNION ALL
             SELECT (SELECT namespace FROM {table} next
                      WHERE next.namespace > it.namespace ORDER BY namespace LIMIT 1)
               FROM it WHERE it.namespace IS NOT NULL)
         SELECT it.namespace, '' AS part, p.max_age_seconds, p.namespace IS NOT NULL AS is_set
           FROM it LEFT JOIN retention_policies p
             ON p.namespace = it.namespace AND p.table_name = '{table}'
          WHERE it.namespace IS NOT NULL"
    )
}

const TRANSITION_TARGETS: &str = concat!(
    "WITH RECURSIVE it AS (
        (SELECT namespace, entity_type FROM fsm_transitions
          ORDER BY namespace, entity_type LIMIT 1)
         UNION ALL
        SELECT next.namespace, next.entity_type FROM it",
    lateral!(
        "next",
        "SELECT namespace, entity_type FROM fsm_transitions t
          WHERE (t.namespace, t.entity_type) > (it.namespace, it.entity_type)
          ORDER BY namespace, entity_type LIMIT 1"
    ),
    ")
    SELECT it.namespace, it.entity_type AS part, p.max_age_seconds,
           p.namespace IS NOT NULL AS is_set
      FROM it LEFT JOIN retention_policies p
        ON p.namespace = it.namespace AND p.table_name = 'fsm_transitions'"
);

impl Query for PruneTargets {
    type Answer = Vec<Group>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let select = diesel::sql_query(select_targets(self.0));
        Ok(Ok(select.load(connection).await?))
    }
}

/// Registers the statement of each table.
macro_rules! register_tables {
    ($($table:ident),+) => {$(
        register!(
            concat!("PruneTargets ", stringify!($table)), false, [],
            || select_targets(Table::$table)
        );
    )+};
}

register_tables!(Workflows, Transitions, Batches, Stamps);
