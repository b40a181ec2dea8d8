//! Samples of AdminService.

use bridgebook::proto::Rpc;
use serde_json::json;

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    let sample = match rpc {
        // A token of the role ADMIN covers every namespace, so it names none.
        Rpc::AdminServiceCreateToken => Sample::new(json!({
            "id": "+token",
            "name": "~token",
            "role": "ROLE_ADMIN",
            "namespaces": null,
            "expires_at": null,
        }))
        .or(json!({"id": ""}))
        .or(json!({"role": "ROLE_READER", "namespaces": ["team-a", "team-*"]})),
        Rpc::AdminServiceRevokeToken => Sample::new(json!({"id": "$token"})),
        Rpc::AdminServiceSetRetentionPolicy => Sample::new(json!({
            "table": "RETAINED_TABLE_FSM_TRANSITIONS",
            "max_age": "3600s",
        }))
        .or(json!({"table": "RETAINED_TABLE_METADATA_STAMPS"})),
        Rpc::AdminServiceDeleteRetentionPolicy => {
            Sample::new(json!({"table": "RETAINED_TABLE_FSM_TRANSITIONS"}))
                .or(json!({"table": "RETAINED_TABLE_METADATA_STAMPS"}))
        }
        Rpc::AdminServiceSetQuota => Sample::new(json!({
            "namespace": "~limited",
            "calls_per_second": 100,
            "items_per_second": 0,
            "calls_in_progress": 10,
            "weight": null,
        }))
        .or(json!({"weight": 3}))
        .or(json!({"namespace": null, "token_id": "$token", "weight": null})),
        Rpc::AdminServiceDeleteQuota => {
            Sample::new(json!({})).or(json!({"namespace": null, "token_id": "$token"}))
        }
        Rpc::AdminServiceListQuotas
        | Rpc::AdminServiceListRetentionPolicies
        | Rpc::AdminServiceGetSystemHealth
        | Rpc::AdminServiceListNamespaceSummaries
        | Rpc::AdminServiceGetIndexUsage
        | Rpc::AdminServiceGetTableScans
        | Rpc::AdminServiceListMigrations
        | Rpc::AdminServiceListTokens => Sample::new(json!({})),
        _ => return None,
    };
    Some(sample)
}
