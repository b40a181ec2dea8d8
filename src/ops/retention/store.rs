//! All SQL about retention. It looks over all namespaces, one at a time.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Double, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::model::{NewPolicy, Policy, PolicyFilter, PolicyRemoval, Table};
use crate::{
    db::{DbError, Query, collect_page::collect_page, schema::retention_policies},
    domain::{error::Result, page::Page},
};

/// How many rows a statement removes: it takes some milliseconds, and locks nothing
/// that anybody still writes. A workflow takes its steps along.
const ROWS: i64 = 500;

/// Sets a policy, or changes it.
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

/// Removes a policy; answers whether there was one.
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

/// Rows of a table that are told apart by an index: those of a namespace, or of a
/// part of it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Group {
    /// The tenant.
    #[diesel(sql_type = Text)]
    pub namespace: String,
    /// For the journal, the type of the entities; else empty.
    #[diesel(sql_type = Text)]
    pub part: String,
    /// What was set for the namespace, in seconds; null if nothing was set, or any age.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub max_age_seconds: Option<i64>,
    /// Whether something was set.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub is_set: bool,
}

/// How the rows of a table are removed.
struct TableSpec {
    table: &'static str,
    /// What tells a row from others.
    key: &'static str,
    /// Since when it gets old.
    age: &'static str,
    /// The namespace, as the index has it.
    namespace: &'static str,
    /// What holds for the rows of a part: those of a namespace have none.
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
                // So that batches are looked up by no other index than that of their key.
                Table::Batches => "namespace COLLATE \"C\"",
                Table::Workflows | Table::Transitions | Table::Stamps => "namespace",
            },
            part,
        }
    }
}

impl TableSpec {
    /// Which rows are too old: of the namespace `$1` and the part `$2`, for longer than `$3`
    /// seconds.
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

/// Finds the groups of a table: it goes from one to the next by the index, however
/// many rows each has.
pub struct PruneTargets(pub Table);

fn namespaces(table: &str) -> String {
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

const TRANSITION_GROUPS: &str = "
    WITH RECURSIVE it AS (
        (SELECT namespace, entity_type FROM fsm_transitions
          ORDER BY namespace, entity_type LIMIT 1)
         UNION ALL
        SELECT next.namespace, next.entity_type FROM it CROSS JOIN LATERAL
            (SELECT namespace, entity_type FROM fsm_transitions t
              WHERE (t.namespace, t.entity_type) > (it.namespace, it.entity_type)
              ORDER BY namespace, entity_type LIMIT 1) next)
    SELECT it.namespace, it.entity_type AS part, p.max_age_seconds,
           p.namespace IS NOT NULL AS is_set
      FROM it LEFT JOIN retention_policies p
        ON p.namespace = it.namespace AND p.table_name = 'fsm_transitions'";

impl Query for PruneTargets {
    type Answer = Vec<Group>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let groups = match self.0 {
            Table::Transitions => TRANSITION_GROUPS.to_owned(),
            table => namespaces(table.as_str()),
        };
        Ok(Ok(diesel::sql_query(groups).load(connection).await?))
    }
}

/// Rows of a group that are older than they get.
pub struct ExpiredGroup {
    /// The table.
    pub table: Table,
    /// The group.
    pub group: Group,
    /// How old they get, in seconds.
    pub max_age_seconds: i64,
}

/// Removes some rows that are too old, the oldest first; answers how many. Rows that
/// another replica removes, or somebody changes, are left out.
pub struct PruneRows<'a>(pub &'a ExpiredGroup);

impl Query for PruneRows<'_> {
    type Answer = i64;

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<i64>, DbError> {
        let PruneRows(old) = self;
        let spec = old.table.spec();
        let is_expired = spec.is_expired();
        let TableSpec {
            table, key, age, ..
        } = spec;
        let remove = format!(
            "DELETE FROM {table} WHERE ({key}) IN
                 (SELECT {key} FROM {table} WHERE {is_expired}
                   ORDER BY {age} LIMIT $4 FOR UPDATE SKIP LOCKED)"
        );
        let removed = diesel::sql_query(remove)
            .bind::<Text, _>(&old.group.namespace)
            .bind::<Text, _>(&old.group.part)
            .bind::<BigInt, _>(old.max_age_seconds)
            .bind::<BigInt, _>(ROWS)
            .execute(connection)
            .await?;
        Ok(Ok(i64::try_from(removed).unwrap_or(i64::MAX)))
    }
}

impl PruneRows<'_> {
    /// Whether there may be more, after so many were removed.
    #[must_use]
    pub fn may_leave_some(removed: i64) -> bool {
        removed >= ROWS
    }
}

/// Counts rows that are too old.
pub struct CountExpired<'a>(pub &'a ExpiredGroup);

/// How many rows are too old, and how old the oldest is.
#[derive(Debug, QueryableByName)]
pub struct ExpiredRows {
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// In seconds; null if there are none.
    #[diesel(sql_type = Nullable<Double>)]
    pub oldest_seconds: Option<f64>,
}

impl Query for CountExpired<'_> {
    type Answer = ExpiredRows;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let CountExpired(old) = self;
        let spec = old.table.spec();
        let is_expired = spec.is_expired();
        let TableSpec { table, age, .. } = spec;
        let count = format!(
            "SELECT count(*) AS count,
                    extract(epoch FROM now() - min({age}))::DOUBLE PRECISION AS oldest_seconds
               FROM {table} WHERE {is_expired}"
        );
        let rows = diesel::sql_query(count)
            .bind::<Text, _>(&old.group.namespace)
            .bind::<Text, _>(&old.group.part)
            .bind::<BigInt, _>(old.max_age_seconds)
            .get_result(connection)
            .await?;
        Ok(Ok(rows))
    }
}
