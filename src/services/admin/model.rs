//! The requests of operators, and the rows that answer them.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Nullable, Text},
};

/// The request for the dashboard.
#[derive(Debug)]
pub struct HealthQuery {
    /// Counts workflows started within this many microseconds before the database's now().
    pub started_within_micros: i64,
}

/// The dashboard.
#[derive(Debug)]
pub struct SystemHealth {
    /// The workflows of the window.
    pub workflows: WorkflowHealth,
    /// All nodes.
    pub nodes: FleetHealth,
    /// The number of fleets for which the sweeper pauses.
    pub paused_fleets: i64,
}

/// The number of workflows by state.
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

/// The number of nodes by health.
#[derive(Debug, QueryableByName)]
pub struct FleetHealth {
    /// All nodes.
    #[diesel(sql_type = BigInt)]
    pub total: i64,
    /// Nodes that are HEALTHY.
    #[diesel(sql_type = BigInt)]
    pub healthy: i64,
    /// Nodes that are UNHEALTHY.
    #[diesel(sql_type = BigInt)]
    pub unhealthy: i64,
    /// Nodes that are DEGRADED.
    #[diesel(sql_type = BigInt)]
    pub degraded: i64,
    /// Nodes without a heartbeat within their TTL.
    #[diesel(sql_type = BigInt)]
    pub stale: i64,
}

/// The request for a summary of each namespace.
#[derive(Debug)]
pub struct SummaryQuery {
    /// Maximum number of namespaces.
    pub limit: i64,
    /// Counts workflows started within this many microseconds before the database's now();
    /// unset for all workflows.
    pub started_within_micros: Option<i64>,
}

/// The summary of a namespace.
#[derive(Debug, QueryableByName)]
pub struct NamespaceSummary {
    /// The namespace.
    #[diesel(sql_type = Text)]
    pub namespace: String,
    /// Number of its workflows.
    #[diesel(sql_type = BigInt)]
    pub total_workflows: i64,
    /// Average run time of its workflows, in milliseconds.
    #[diesel(sql_type = Nullable<Double>)]
    pub avg_execution_time_ms: Option<f64>,
    /// Number of its bridges.
    #[diesel(sql_type = BigInt)]
    pub bridge_count: i64,
}

/// The request for the usage of indexes.
#[derive(Debug)]
pub struct IndexQuery {
    /// Maximum number of indexes.
    pub limit: i64,
}

/// The usage of an index.
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

/// The request for the sequential scans of tables.
#[derive(Debug)]
pub struct ScanQuery {
    /// Maximum number of tables.
    pub limit: i64,
}

/// The scans of a table.
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

/// The request for the migrations of the schema.
#[derive(Debug)]
pub struct MigrationsQuery;
