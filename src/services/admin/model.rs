//! What an operator can ask, and what comes of it.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Nullable, Text},
};

use crate::services::registry::model::Fleet;

/// Asks for the dashboard.
#[derive(Debug)]
pub struct HealthQuery {
    /// Workflows that started within this many microseconds before the database's present.
    pub started_within_micros: i64,
}

/// The dashboard.
#[derive(Debug)]
pub struct SystemHealth {
    /// The workflows of the window.
    pub workflows: WorkflowHealth,
    /// All nodes.
    pub nodes: FleetHealth,
    /// What the sweeper sees.
    pub fleet: Fleet,
}

/// Counts workflows by their states.
#[derive(Debug, QueryableByName)]
#[expect(missing_docs, reason = "the states of a workflow")]
pub struct WorkflowHealth {
    #[diesel(sql_type = BigInt)]
    pub total: i64,
    #[diesel(sql_type = BigInt)]
    pub completed: i64,
    #[diesel(sql_type = BigInt)]
    pub failed: i64,
    #[diesel(sql_type = BigInt)]
    pub in_progress: i64,
    #[diesel(sql_type = BigInt)]
    pub pending: i64,
    #[diesel(sql_type = BigInt)]
    pub cancelled: i64,
}

/// Counts nodes by their health.
#[derive(Debug, QueryableByName)]
pub struct FleetHealth {
    /// All of them.
    #[diesel(sql_type = BigInt)]
    pub total: i64,
    /// HEALTHY.
    #[diesel(sql_type = BigInt)]
    pub healthy: i64,
    /// UNHEALTHY.
    #[diesel(sql_type = BigInt)]
    pub unhealthy: i64,
    /// DEGRADED.
    #[diesel(sql_type = BigInt)]
    pub degraded: i64,
    /// Not heard of within their TTL.
    #[diesel(sql_type = BigInt)]
    pub stale: i64,
}

/// Asks for a line about each namespace.
#[derive(Debug)]
pub struct SummaryQuery {
    /// At most so many.
    pub limit: i64,
    /// Workflows that started within this many microseconds before the database's
    /// present; all of them if not given.
    pub started_within_micros: Option<i64>,
}

/// A line about a namespace.
#[derive(Debug, QueryableByName)]
pub struct NamespaceSummary {
    /// The namespace.
    #[diesel(sql_type = Text)]
    pub namespace: String,
    /// How many workflows it has.
    #[diesel(sql_type = BigInt)]
    pub total_workflows: i64,
    /// How long they took on average, in milliseconds.
    #[diesel(sql_type = Nullable<Double>)]
    pub avg_execution_time_ms: Option<f64>,
    /// How many bridges it has.
    #[diesel(sql_type = BigInt)]
    pub bridge_count: i64,
}

/// Asks how often indexes are used.
#[derive(Debug)]
pub struct IndexQuery {
    /// At most so many.
    pub limit: i64,
}

/// How often an index was used.
#[derive(Debug, QueryableByName)]
#[expect(missing_docs, reason = "see pg_stat_user_indexes")]
pub struct IndexUsage {
    #[diesel(sql_type = Text)]
    pub schema_name: String,
    #[diesel(sql_type = Text)]
    pub table_name: String,
    #[diesel(sql_type = Text)]
    pub index_name: String,
    #[diesel(sql_type = BigInt)]
    pub times_used: i64,
    #[diesel(sql_type = BigInt)]
    pub tuples_read: i64,
    #[diesel(sql_type = BigInt)]
    pub tuples_fetched: i64,
    #[diesel(sql_type = BigInt)]
    pub size_bytes: i64,
}

/// Asks how often tables are read from end to end.
#[derive(Debug)]
pub struct ScanQuery {
    /// At most so many.
    pub limit: i64,
}

/// How often a table was read from end to end.
#[derive(Debug, QueryableByName)]
#[expect(missing_docs, reason = "see pg_stat_user_tables")]
pub struct TableScans {
    #[diesel(sql_type = Text)]
    pub schema_name: String,
    #[diesel(sql_type = Text)]
    pub table_name: String,
    #[diesel(sql_type = BigInt)]
    pub sequential_scans: i64,
    #[diesel(sql_type = BigInt)]
    pub sequential_tuples_read: i64,
    #[diesel(sql_type = BigInt)]
    pub index_scans: i64,
    #[diesel(sql_type = BigInt)]
    pub avg_sequential_tuples: i64,
    #[diesel(sql_type = BigInt)]
    pub live_tuples: i64,
}

/// Asks for the migrations.
#[derive(Debug)]
pub struct MigrationsQuery;
