//! Counting and removing expired rows.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Double, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{deleted_bridges, journal_floor};
use crate::{
    db::{
        DbError, Query,
        planner::{byte_order, lateral, register},
    },
    domain::{error::Result, namespace::Namespace},
    ops::retention::model::Table,
};

/// How many rows one statement deletes at most. It takes some milliseconds, and locks only rows that
/// no caller writes any more.
pub const MAX_ROWS: i64 = 500;

/// How many workflows one statement deletes at most. Their steps and stamps count against
/// [`MAX_ROWS`].
const WORKFLOWS: i64 = 100;

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
    #[diesel(sql_type = Bool)]
    pub is_set: bool,
}

/// How the rows of a table are pruned.
pub(super) struct TableSpec {
    pub(super) table: &'static str,
    /// The columns of the primary key.
    pub(super) key: &'static str,
    /// The column with the time from which a row ages.
    pub(super) age: &'static str,
    /// The namespace, in the collation of the index that pruning uses.
    namespace: &'static str,
    /// The condition for rows of the part `$2`.
    part: &'static str,
}

impl Table {
    pub(super) fn spec(self) -> TableSpec {
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
    pub(super) fn is_expired(&self) -> String {
        let TableSpec {
            namespace,
            age,
            part,
            ..
        } = self;
        format!("{namespace} = $1 AND {part} AND {age} < now() - $3 * INTERVAL '1 second'")
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

impl ExpiredGroup {
    /// Returns the rows of a table in the namespace of deleted rows; `None` if none move there.
    #[must_use]
    pub fn deleted(table: Table) -> Option<Self> {
        let namespace = match table {
            Table::Workflows | Table::Batches => Namespace::deleted().to_string(),
            Table::Transitions | Table::Stamps => return None,
        };
        let group = Group {
            namespace,
            part: String::new(),
            max_age_seconds: None,
            is_set: false,
        };
        Some(ExpiredGroup {
            table,
            group,
            max_age_seconds: 0,
        })
    }

    /// Returns whether these are rows that callers or retention deleted, but that are still to be
    /// removed.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        Namespace::is_deleted(&self.group.namespace)
    }

    /// Returns whether these are batches of deleted bridges. They keep the namespace of the tenant;
    /// only their bridges have moved.
    pub(super) fn is_of_deleted_bridges(&self) -> bool {
        self.table == Table::Batches && self.is_deleted()
    }

    /// Returns the statement that removes some of the rows.
    fn prune(&self) -> String {
        match self.is_of_deleted_bridges() {
            true => deleted_bridges::DELETE.to_owned(),
            false => prune_rows(self.table),
        }
    }

    /// Returns the statement that counts the rows.
    fn count(&self) -> String {
        match self.is_of_deleted_bridges() {
            true => deleted_bridges::COUNT.to_owned(),
            false => count_expired(self.table),
        }
    }
}

/// Deletes some expired rows, oldest first. Skips rows that another replica deletes, or another
/// statement changes.
pub struct PruneRows<'a> {
    /// The group.
    pub expired: &'a ExpiredGroup,
    /// The most rows to delete, up to [`MAX_ROWS`].
    pub rows: i64,
    /// The number of the oldest rows to pass over.
    pub skipped: i64,
}

/// The outcome of [`PruneRows`].
#[derive(Debug, QueryableByName)]
pub struct Pruned {
    /// The number of deleted rows, without the steps of workflows.
    #[diesel(sql_type = BigInt)]
    pub removed: i64,
    /// Whether expired rows may remain.
    #[diesel(sql_type = Bool)]
    pub may_leave_some: bool,
    /// The number of rows that remain although the statement did not fail: a trigger returned NULL.
    /// Now they are the oldest ones after those that were passed over.
    #[diesel(sql_type = BigInt)]
    pub kept: i64,
}

/// Returns the statement that deletes rows without children. A subquery in the condition could
/// be evaluated once for each row of the table, and so lock and delete more than its limit. A
/// materialized one is evaluated once. Of the journal, the statement also moves the floor.
fn delete_expired(table: Table) -> String {
    let (returning, floor) = match table {
        Table::Transitions => (journal_floor::RETURNING, journal_floor::MOVE),
        Table::Workflows | Table::Batches | Table::Stamps => ("1", ""),
    };
    let spec = table.spec();
    let is_expired = spec.is_expired();
    let TableSpec {
        table, key, age, ..
    } = spec;
    let keys = key.split(", ").map(|it| format!("it.{it} = expired.{it}"));
    let is_same = keys.collect::<Vec<_>>().join(" AND ");
    format!(
        "WITH expired AS MATERIALIZED (
            SELECT {key} FROM {table} WHERE {is_expired}
             ORDER BY {age}, {key} LIMIT $4 OFFSET $5 FOR UPDATE SKIP LOCKED
         ), deleted AS (
            DELETE FROM {table} it USING expired WHERE {is_same} RETURNING {returning}
         ){floor}
         SELECT count(*) AS removed, (SELECT count(*) FROM expired) >= $4 AS may_leave_some,
                (SELECT count(*) FROM expired) - count(*) AS kept
           FROM deleted"
    )
}

/// Returns the statement that deletes workflows. The foreign keys delete their steps, and detach
/// their stamps. It takes up to `$4` of the oldest workflows that have fewer than [`MAX_ROWS`] steps
/// and stamps together. If the oldest one alone has more, it moves to the namespace of deleted rows, so
/// that no caller sees a part of it. There the statement deletes or detaches as many of them.
fn delete_workflows() -> String {
    let is_expired = Table::Workflows.spec().is_expired();
    let deleted = Namespace::deleted();
    let children = lateral!(
        "child",
        "(SELECT s.id, true AS is_step FROM workflow_steps s
           WHERE s.workflow_id = expired.id LIMIT MAX_ROWS)
          UNION ALL
         (SELECT m.id, false AS is_step FROM metadata_stamps m
           WHERE m.workflow_id = expired.id LIMIT MAX_ROWS)"
    );
    let children = children.replace("MAX_ROWS", &MAX_ROWS.to_string());
    format!(
        "WITH locked AS MATERIALIZED (
            SELECT id FROM workflow_executions WHERE {is_expired}
             ORDER BY completed_at, id LIMIT least($4, {WORKFLOWS}) OFFSET $5 FOR UPDATE SKIP LOCKED
         ), expired AS MATERIALIZED (
            SELECT id, row_number() OVER () AS number FROM locked
         ), children AS MATERIALIZED (
            SELECT expired.number, child.id, child.is_step FROM expired {children} LIMIT {MAX_ROWS}
         ), complete AS MATERIALIZED (
            -- At the limit, the last workflow may have more children.
            SELECT CASE WHEN count(*) >= {MAX_ROWS} THEN max(number) - 1 ELSE {WORKFLOWS} END
                   AS workflows
              FROM children
         ), deleted AS (
            DELETE FROM workflow_executions w USING expired, complete
             WHERE w.id = expired.id AND expired.number <= complete.workflows
            RETURNING 1
         ), moved AS (
            UPDATE workflow_executions w
               SET namespace = '{deleted}', correlation_id = gen_random_uuid(),
                   completed_at = now(), updated_at = now()
              FROM expired, complete
             WHERE w.id = expired.id AND expired.number = 1 AND complete.workflows = 0
               AND $1 <> '{deleted}'
            RETURNING 1
         ), fewer_steps AS (
            DELETE FROM workflow_steps s USING children, complete
             WHERE s.id = children.id AND children.is_step AND complete.workflows = 0
               AND $1 = '{deleted}'
            RETURNING 1
         ), fewer_stamps AS (
            UPDATE metadata_stamps m SET workflow_id = NULL FROM children, complete
             WHERE m.id = children.id AND NOT children.is_step AND complete.workflows = 0
               AND $1 = '{deleted}'
            RETURNING 1
         ), taken AS (
            SELECT (SELECT count(*) FROM locked) AS locked,
                   (SELECT workflows FROM complete) AS complete,
                   (SELECT count(*) FROM deleted) AS deleted,
                   (SELECT count(*) FROM moved) + (SELECT count(*) FROM fewer_steps)
                       + (SELECT count(*) FROM fewer_stamps) AS parts
         )
         SELECT deleted AS removed,
                locked > least(deleted, $4 - 1, {WORKFLOWS} - 1) AS may_leave_some,
                CASE WHEN complete > 0 THEN least(locked, complete) - deleted
                     WHEN parts > 0 THEN 0 ELSE 1 END AS kept
           FROM taken"
    )
}

fn prune_rows(table: Table) -> String {
    match table {
        Table::Workflows => delete_workflows(),
        Table::Transitions | Table::Batches | Table::Stamps => delete_expired(table),
    }
}

impl Query for PruneRows<'_> {
    type Answer = Pruned;

    fn retries_transient(&self) -> bool {
        // The next step repeats a smaller one.
        self.rows >= MAX_ROWS
    }

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let expired = self.expired;
        let pruned = diesel::sql_query(expired.prune())
            .bind::<Text, _>(&expired.group.namespace)
            .bind::<Text, _>(&expired.group.part)
            .bind::<BigInt, _>(expired.max_age_seconds)
            .bind::<BigInt, _>(self.rows)
            .bind::<BigInt, _>(self.skipped)
            .get_result(connection)
            .await?;
        Ok(Ok(pruned))
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
        let rows = diesel::sql_query(expired.count())
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
            concat!("PruneRows ", stringify!($table)), false, [Text, Text, BigInt, BigInt, BigInt],
            || prune_rows(Table::$table)
        );
        register!(
            concat!("CountExpired ", stringify!($table)), false, [Text, Text, BigInt],
            || count_expired(Table::$table)
        );
    )+};
}

register_tables!(Workflows, Transitions, Batches, Stamps);
