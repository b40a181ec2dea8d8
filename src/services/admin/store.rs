//! The SQL of the operators' reports across all namespaces: counts, statistics of PostgreSQL,
//! and the status of the schema. Nothing here writes.

use diesel::{
    pg::data_types::PgInterval,
    sql_types::{BigInt, Interval, Nullable, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::model::{
    FleetHealth, HealthQuery, IndexQuery, IndexUsage, MigrationsQuery, NamespaceSummary, ScanQuery,
    SummaryQuery, SystemHealth, TableScans, WorkflowHealth,
};
use crate::{
    db::{
        DbError, Query, migrations,
        planner::{READ_WHOLE_TABLES, raw_statement},
    },
    domain::{error::Result, namespace::Namespace},
    services::registry::CountPausedFleets,
};

raw_statement! {
/// The workflows of "System Health Dashboard".
const WORKFLOWS(Interval, Text) = "
    SELECT count(*) AS total,
           count(*) FILTER (WHERE current_state = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE current_state = 'FAILED') AS failed,
           count(*) FILTER (WHERE current_state = 'PROCESSING') AS in_progress,
           count(*) FILTER (WHERE current_state = 'PENDING') AS pending,
           count(*) FILTER (WHERE current_state = 'CANCELLED') AS cancelled
      FROM workflow_executions
     WHERE started_at > now() - $1 AND namespace <> $2";
}

raw_statement! {
/// The nodes of "System Health Dashboard". Each node has its own TTL.
const NODES() = "
    SELECT count(*) AS total,
           count(*) FILTER (WHERE health_status = 'HEALTHY') AS healthy,
           count(*) FILTER (WHERE health_status = 'UNHEALTHY') AS unhealthy,
           count(*) FILTER (WHERE health_status = 'DEGRADED') AS degraded,
           count(*) FILTER (WHERE is_stale) AS stale
      FROM (SELECT health_status,
                   last_heartbeat <= now() - heartbeat_ttl_ms * INTERVAL '1 millisecond' AS is_stale
              FROM node_registrations) node";
}

raw_statement! {
/// The cross-namespace summary. Workflows and bridges are counted before the join. Otherwise
/// each workflow would count once per bridge, and namespaces without workflows would be
/// missing.
const SUMMARIES(Nullable<Interval>, BigInt, Text) = "
    SELECT namespace,
           coalesce(total_workflows, 0) AS total_workflows,
           avg_execution_time_ms,
           coalesce(bridge_count, 0) AS bridge_count
      FROM (SELECT namespace, count(*) AS total_workflows,
                   avg(execution_time_ms)::double precision AS avg_execution_time_ms
              FROM workflow_executions
             WHERE ($1 IS NULL OR started_at > now() - $1) AND namespace <> $3
             GROUP BY namespace) workflows
      FULL JOIN (SELECT namespace, count(*) AS bridge_count
                   FROM bridge_states
                  WHERE namespace <> $3
                  GROUP BY namespace) bridges USING (namespace)
     ORDER BY total_workflows DESC, namespace
     LIMIT $2";
}

raw_statement! {
/// "Index Usage Verification", for the current schema.
const INDEXES(BigInt) = "
    SELECT schemaname::text AS schema_name, relname::text AS table_name,
           indexrelname::text AS index_name, idx_scan AS times_used, idx_tup_read AS tuples_read,
           idx_tup_fetch AS tuples_fetched, pg_relation_size(indexrelid) AS size_bytes
      FROM pg_stat_user_indexes
     WHERE schemaname = current_schema()
     ORDER BY idx_scan DESC, indexrelname
     LIMIT $1";
}

raw_statement! {
/// "Missing Indexes Detection". The average is 0 for a table without sequential scans.
const SCANS(BigInt) = "
    SELECT schemaname::text AS schema_name, relname::text AS table_name,
           seq_scan AS sequential_scans, seq_tup_read AS sequential_tuples_read,
           coalesce(idx_scan, 0) AS index_scans,
           coalesce(seq_tup_read / nullif(seq_scan, 0), 0) AS avg_sequential_tuples,
           n_live_tup AS live_tuples
      FROM pg_stat_user_tables
     WHERE schemaname = current_schema()
     ORDER BY seq_tup_read DESC, relname
     LIMIT $1";
}

/// Counts workflows and nodes.
impl Query for HealthQuery {
    type Answer = SystemHealth;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let within = PgInterval::from_microseconds(self.started_within_micros);
        let query = diesel::sql_query(WORKFLOWS)
            .bind::<Interval, _>(within)
            .bind::<Text, _>(Namespace::deleted());
        let workflows: WorkflowHealth = query.get_result(connection).await?;
        let nodes = connection.transaction(async |connection| {
            connection.batch_execute(READ_WHOLE_TABLES).await?;
            diesel::sql_query(NODES).get_result(connection).await
        });
        let nodes: FleetHealth = nodes.await?;
        let paused = CountPausedFleets.run(connection).await?;
        Ok(paused.map(|paused| SystemHealth {
            workflows,
            nodes,
            paused_fleets: paused.count,
        }))
    }
}

/// Summarizes namespaces.
impl Query for SummaryQuery {
    type Answer = Vec<NamespaceSummary>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let within = self
            .started_within_micros
            .map(PgInterval::from_microseconds);
        let query = diesel::sql_query(SUMMARIES)
            .bind::<Nullable<Interval>, _>(within)
            .bind::<BigInt, _>(self.limit)
            .bind::<Text, _>(Namespace::deleted());
        let summaries = connection.transaction(async |connection| {
            connection.batch_execute(READ_WHOLE_TABLES).await?;
            query.load(connection).await
        });
        Ok(Ok(summaries.await?))
    }
}

/// Reads the usage of indexes.
impl Query for IndexQuery {
    type Answer = Vec<IndexUsage>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let query = diesel::sql_query(INDEXES).bind::<BigInt, _>(self.limit);
        Ok(Ok(query.load(connection).await?))
    }
}

/// Reads the numbers of sequential scans.
impl Query for ScanQuery {
    type Answer = Vec<TableScans>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let query = diesel::sql_query(SCANS).bind::<BigInt, _>(self.limit);
        Ok(Ok(query.load(connection).await?))
    }
}

/// Reads the status of the migrations.
impl Query for MigrationsQuery {
    type Answer = Vec<migrations::Status>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        Ok(Ok(migrations::status_on(connection).await?))
    }
}
