//! Answers. Nothing here can fail.

use crate::{
    db::migrations,
    domain::{page::Page, time},
    ops::retention::model::Policy,
    proto::v1,
    rpc::auth::token::Token,
    services::admin::model::{
        FleetHealth, IndexUsage, NamespaceSummary, SystemHealth, TableScans, WorkflowHealth,
    },
};

impl From<SystemHealth> for v1::GetSystemHealthResponse {
    fn from(health: SystemHealth) -> Self {
        v1::GetSystemHealthResponse {
            workflows: Some(health.workflows.into()),
            nodes: Some(v1::NodeFleetHealth {
                sweeper_paused: health.fleet.is_mass_outage(),
                ..health.nodes.into()
            }),
        }
    }
}

impl From<WorkflowHealth> for v1::WorkflowHealth {
    fn from(health: WorkflowHealth) -> Self {
        v1::WorkflowHealth {
            total: health.total,
            completed: health.completed,
            failed: health.failed,
            in_progress: health.in_progress,
            pending: health.pending,
            cancelled: health.cancelled,
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
        }
    }
}

impl From<Vec<NamespaceSummary>> for v1::ListNamespaceSummariesResponse {
    fn from(rows: Vec<NamespaceSummary>) -> Self {
        let summaries = rows.into_iter().map(|row| v1::NamespaceSummary {
            namespace: row.namespace,
            total_workflows: row.total_workflows,
            avg_execution_time_ms: row.avg_execution_time_ms,
            bridge_count: row.bridge_count,
        });
        v1::ListNamespaceSummariesResponse {
            summaries: summaries.collect(),
        }
    }
}

impl From<Vec<IndexUsage>> for v1::GetIndexUsageResponse {
    fn from(rows: Vec<IndexUsage>) -> Self {
        let indexes = rows.into_iter().map(|row| v1::IndexUsage {
            schema_name: row.schema_name,
            table_name: row.table_name,
            index_name: row.index_name,
            times_used: row.times_used,
            tuples_read: row.tuples_read,
            tuples_fetched: row.tuples_fetched,
            size_bytes: row.size_bytes,
        });
        v1::GetIndexUsageResponse {
            indexes: indexes.collect(),
        }
    }
}

impl From<Vec<TableScans>> for v1::GetTableScansResponse {
    fn from(rows: Vec<TableScans>) -> Self {
        let tables = rows.into_iter().map(|row| v1::TableScans {
            schema_name: row.schema_name,
            table_name: row.table_name,
            sequential_scans: row.sequential_scans,
            sequential_tuples_read: row.sequential_tuples_read,
            index_scans: row.index_scans,
            avg_sequential_tuples: row.avg_sequential_tuples,
            live_tuples: row.live_tuples,
        });
        v1::GetTableScansResponse {
            tables: tables.collect(),
        }
    }
}

impl From<Vec<migrations::Status>> for v1::ListMigrationsResponse {
    fn from(rows: Vec<migrations::Status>) -> Self {
        let migrations = rows.into_iter().map(|row| v1::SchemaMigration {
            description: row.description(),
            version: row.version,
            applied_at: row.applied_at.map(time::to_proto),
        });
        v1::ListMigrationsResponse {
            migrations: migrations.collect(),
        }
    }
}

impl From<Token> for v1::ApiToken {
    fn from(row: Token) -> Self {
        v1::ApiToken {
            id: row.id.to_string(),
            name: row.name,
            role: v1::Role::from(row.role).into(),
            namespaces: row.namespaces.patterns().to_vec(),
            created_at: Some(time::to_proto(row.created_at)),
            expires_at: row.expires_at.map(time::to_proto),
            last_used_at: row.last_used_at.map(time::to_proto),
            revoked_at: row.revoked_at.map(time::to_proto),
        }
    }
}

/// A token and its credential.
impl From<(Token, String)> for v1::CreateTokenResponse {
    fn from((token, credential): (Token, String)) -> Self {
        v1::CreateTokenResponse {
            token: Some(token.into()),
            credential,
        }
    }
}

impl From<Page<Token>> for v1::ListTokensResponse {
    fn from(page: Page<Token>) -> Self {
        v1::ListTokensResponse {
            tokens: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Token> for v1::RevokeTokenResponse {
    fn from(token: Token) -> Self {
        v1::RevokeTokenResponse {
            token: Some(token.into()),
        }
    }
}

impl From<Policy> for v1::RetentionPolicy {
    fn from(policy: Policy) -> Self {
        let table = v1::RetainedTable::from(policy.table_name);
        let max_age = policy.max_age_seconds;
        v1::RetentionPolicy {
            namespace: policy.namespace,
            table: table.into(),
            max_age: max_age.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            created_at: Some(time::to_proto(policy.created_at)),
            updated_at: Some(time::to_proto(policy.updated_at)),
        }
    }
}

impl From<Policy> for v1::SetRetentionPolicyResponse {
    fn from(policy: Policy) -> Self {
        v1::SetRetentionPolicyResponse {
            policy: Some(policy.into()),
        }
    }
}

impl From<Page<Policy>> for v1::ListRetentionPoliciesResponse {
    fn from(page: Page<Policy>) -> Self {
        v1::ListRetentionPoliciesResponse {
            policies: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}
