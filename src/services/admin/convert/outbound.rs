//! Converts domain types to responses, which cannot fail.

use crate::{
    db::migrations,
    domain::time,
    ops::retention::model::Policy,
    proto::v1,
    rpc::auth::token::Token,
    services::{
        admin::model::{
            FleetHealth, IndexUsage, NamespaceSummary, SystemHealth, TableScans, WorkflowHealth,
        },
        convert::{responses, same_fields},
    },
};

impl From<SystemHealth> for v1::GetSystemHealthResponse {
    fn from(health: SystemHealth) -> Self {
        v1::GetSystemHealthResponse {
            workflows: Some(health.workflows.into()),
            nodes: Some(v1::NodeFleetHealth {
                sweeper_paused: health.paused_fleets > 0,
                paused_fleets: health.paused_fleets,
                ..health.nodes.into()
            }),
        }
    }
}

impl From<FleetHealth> for v1::NodeFleetHealth {
    fn from(health: FleetHealth) -> Self {
        v1::NodeFleetHealth {
            total: health.total,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
            stale: health.stale,
            degraded: health.degraded,
            sweeper_paused: false,
            paused_fleets: 0,
        }
    }
}

impl From<migrations::Status> for v1::SchemaMigration {
    fn from(row: migrations::Status) -> Self {
        v1::SchemaMigration {
            description: row.description(),
            version: row.version,
            applied_at: row.applied_at.map(time::to_proto),
        }
    }
}

impl From<Token> for v1::ApiToken {
    fn from(row: Token) -> Self {
        v1::ApiToken {
            id: row.id.to_string(),
            name: row.name,
            role: row
                .role
                .known()
                .map(v1::Role::from)
                .unwrap_or_default()
                .into(),
            namespaces: row.namespaces.patterns().to_vec(),
            created_at: Some(time::to_proto(row.created_at)),
            expires_at: row.expires_at.map(time::to_proto),
            last_used_at: row.last_used_at.map(time::to_proto),
            revoked_at: row.revoked_at.map(time::to_proto),
        }
    }
}

/// From a new token and its credential.
impl From<(Token, String)> for v1::CreateTokenResponse {
    fn from((token, credential): (Token, String)) -> Self {
        v1::CreateTokenResponse {
            token: Some(token.into()),
            credential,
        }
    }
}

impl From<Policy> for v1::RetentionPolicy {
    fn from(policy: Policy) -> Self {
        let table = policy.table_name.known().map(v1::RetainedTable::from);
        let max_age = policy.max_age_seconds;
        v1::RetentionPolicy {
            namespace: policy.namespace,
            table: table.unwrap_or_default().into(),
            max_age: max_age.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            created_at: Some(time::to_proto(policy.created_at)),
            updated_at: Some(time::to_proto(policy.updated_at)),
        }
    }
}

responses! {
    ListNamespaceSummariesResponse { summaries: Vec<NamespaceSummary> }
    GetIndexUsageResponse { indexes: Vec<IndexUsage> }
    GetTableScansResponse { tables: Vec<TableScans> }
    ListMigrationsResponse { migrations: Vec<migrations::Status> }
    ListTokensResponse { tokens: Page<Token> }
    RevokeTokenResponse { token: Token }
    SetRetentionPolicyResponse { policy: Policy }
    ListRetentionPoliciesResponse { policies: Page<Policy> }
    DeleteRetentionPolicyResponse { deleted: bool }
    DeleteQuotaResponse { deleted: bool }
}

same_fields! {
    WorkflowHealth { total, completed, failed, in_progress, pending, cancelled }
    NamespaceSummary { namespace, total_workflows, avg_execution_time_ms, bridge_count }
    IndexUsage {
        schema_name, table_name, index_name, times_used, tuples_read, tuples_fetched, size_bytes,
    }
    TableScans {
        schema_name, table_name, sequential_scans, sequential_tuples_read, index_scans,
        avg_sequential_tuples, live_tuples,
    }
}
