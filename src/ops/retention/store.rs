//! The SQL of retention, across all namespaces.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Double, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::model::{NewPolicy, Policy, PolicyFilter, PolicyRemoval, Table};
use crate::{
    db::{
        DbError, Query,
        collect_page::collect_page,
        planner::{byte_order, lateral, register},
        schema::retention_policies,
    },
    domain::{error::Result, page::Page},
};

/// How many rows one statement deletes. It takes some milliseconds, and locks only rows that
/// no caller writes any more. The steps of a workflow are deleted with it.
const ROWS: i64 = 500;

/// Creates or changes a policy.
impl Query for NewPolicy {
    type Answer = Policy;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let policy = diesel::insert_into(retention_policies::table)
            .values((
                retention_policies::namespace.eq(&self.key.namespace),
                retention_policies::table_name.eq(self.key.table),
                retention_policies::max_age_seconds.eq(self.max_age_seconds),
            ))
            .on_conflict(diesel::upsert::on_constraint("retention_policies_pkey"))
            .do_update()
            .set((
                retention_policies::max_age_seconds.eq(self.max_age_seconds),
                retention_policies::updated_at.eq(diesel::dsl::now),
            ))
            .returning(Policy::as_returning())
            .get_result(connection)
            .await?;
        Ok(Ok(policy))
    }
}

/// Deletes a policy. The answer is whether it existed.
impl Query for PolicyRemoval {
    type Answer = bool;

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<bool>, DbError> {
        let policy = retention_policies::table.find((&self.0.namespace, self.0.table.as_str()));
        let removed = diesel::delete(policy).execute(connection).await?;
        Ok(Ok(removed > 0))
    }
}

/// Lists policies by namespace, then by table.
impl Query for PolicyFilter {
    type Answer = Page<Policy>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let mut query = retention_policies::table
            .select(Policy::as_select())
            .order((
                retention_policies::namespace,
                retention_policies::table_name,
            ))
            .limit(self.page.size + 1)
            .into_boxed();
        if let Some((namespace, table)) = self.page.after.as_ref().and_then(|it| it.split_once(' '))
        {
            let row = (
                retention_policies::namespace,
                retention_policies::table_name,
            );
            let after = row.into_sql::<diesel::sql_types::Record<(Text, Text)>>();
            query = query.filter(after.gt((namespace.to_owned(), table.to_owned())));
        }
        let rows = query.load_stream(connection).await?;
        Ok(Ok(collect_page(rows, &self.page).await?))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}

/// Rows of a table that an index groups: those of a namespace, or of a part of it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Group {
    /// The tenant.
    #[diesel(sql_type = Text)]
    pub namespace: String,
    /// The entity type for the journal, otherwise empty.
    #[diesel(sql_type = Text)]
    pub part: String,
    /// The policy of the namespace, in seconds; null if rows are kept forever, or if there is
    /// no policy.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub max_age_seconds: Option<i64>,
    /// Whether the namespace has a policy.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub is_set: bool,
}

/// How the rows of a table are pruned.
struct TableSpec {
    table: &'static str,
    /// The columns of the primary key.
    key: &'static str,
    /// The column with the time from which a row ages.
    age: &'static str,
    /// The namespace, in the collation of the index that pruning uses.
    namespace: &'static str,
    /// The condition for rows of the part `$2`.
    part: &'static str,
}

impl Table {
    fn spec(self) -> TableSpec {
        let (key, age, part) = match self {
            Table::Workflows => ("id", "completed_at", "$2 = ''"),
            Table::Transitions => ("id", "created_at", "entity_type = $2"),
            Table::Batches => ("namespace, bridge_id, batch_id", "created_at", "$2 = ''"),
            Table::Stamps => ("id", "created_at", "$2 = ''"),
        };
        TableSpec {
            table: self.as_str(),
            key,
            age,
            namespace: match self {
                Table::Batches => byte_order!("namespace"),
                Table::Workflows | Table::Transitions | Table::Stamps => "namespace",
            },
            part,
        }
    }
}

impl TableSpec {
    /// Returns the condition for rows of the namespace `$1` and the part `$2` that are older
    /// than `$3` seconds.
    fn is_expired(&self) -> String {
        let TableSpec {
            namespace,
            age,
            part,
            ..
        } = self;
        format!("{namespace} = $1 AND {part} AND {age} < now() - $3 * INTERVAL '1 second'")
    }
}

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

/// The expired rows of a group.
pub struct ExpiredGroup {
    /// The table.
    pub table: Table,
    /// The group.
    pub group: Group,
    /// The age from which rows are expired, in seconds.
    pub max_age_seconds: i64,
}

/// Deletes some expired rows, oldest first, and returns their number. Skips rows that another
/// replica deletes, or another statement changes.
pub struct PruneRows<'a>(pub &'a ExpiredGroup);

fn delete_expired(table: Table) -> String {
    let spec = table.spec();
    let is_expired = spec.is_expired();
    let TableSpec {
        table, key, age, ..
    } = spec;
    format!(
        "DELETE FROM {table} WHERE ({key}) IN
             (SELECT {key} FROM {table} WHERE {is_expired}
               ORDER BY {age} LIMIT $4 FOR UPDATE SKIP LOCKED)"
    )
}

impl Query for PruneRows<'_> {
    type Answer = i64;

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<i64>, DbError> {
        let PruneRows(expired) = self;
        let deleted = diesel::sql_query(delete_expired(expired.table))
            .bind::<Text, _>(&expired.group.namespace)
            .bind::<Text, _>(&expired.group.part)
            .bind::<BigInt, _>(expired.max_age_seconds)
            .bind::<BigInt, _>(ROWS)
            .execute(connection)
            .await?;
        Ok(Ok(i64::try_from(deleted).unwrap_or(i64::MAX)))
    }
}

impl PruneRows<'_> {
    /// Returns whether expired rows may remain after a statement deleted this many.
    #[must_use]
    pub fn may_leave_some(deleted: i64) -> bool {
        deleted >= ROWS
    }
}

/// Counts expired rows.
pub struct CountExpired<'a>(pub &'a ExpiredGroup);

/// The number of expired rows, and the age of the oldest.
#[derive(Debug, QueryableByName)]
pub struct ExpiredRows {
    /// The number of rows.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// The age in seconds; null if there are no rows.
    #[diesel(sql_type = Nullable<Double>)]
    pub oldest_seconds: Option<f64>,
}

fn count_expired(table: Table) -> String {
    let spec = table.spec();
    let is_expired = spec.is_expired();
    let TableSpec { table, age, .. } = spec;
    format!(
        "SELECT count(*) AS count,
                extract(epoch FROM now() - min({age}))::DOUBLE PRECISION AS oldest_seconds
           FROM {table} WHERE {is_expired}"
    )
}

impl Query for CountExpired<'_> {
    type Answer = ExpiredRows;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let CountExpired(expired) = self;
        let rows = diesel::sql_query(count_expired(expired.table))
            .bind::<Text, _>(&expired.group.namespace)
            .bind::<Text, _>(&expired.group.part)
            .bind::<BigInt, _>(expired.max_age_seconds)
            .get_result(connection)
            .await?;
        Ok(Ok(rows))
    }
}

/// Registers the statements of each table.
macro_rules! register_tables {
    ($($table:ident),+) => {$(
        register!(
            concat!("PruneTargets ", stringify!($table)), false, [],
            || select_targets(Table::$table)
        );
        register!(
            concat!("PruneRows ", stringify!($table)), false, [Text, Text, BigInt, BigInt],
            || delete_expired(Table::$table)
        );
        register!(
            concat!("CountExpired ", stringify!($table)), false, [Text, Text, BigInt],
            || count_expired(Table::$table)
        );
    )+};
}

register_tables!(Workflows, Transitions, Batches, Stamps);
