//! Samples of RegistryService.

use bridgebook::proto::Rpc;
use serde_json::{Value, json};

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    let sample = match rpc {
        Rpc::RegistryServiceRegisterNode => Sample::new(json!({
            "node_id": "+node",
            "node_type": "~type",
            "node_version": "~v1",
            "metadata": {"text": "~metadata"},
        }))
        .or(json!({"metadata": {"text": "~other"}}))
        .or(json!({"node_version": "~v2"}))
        .makes(&["node"]),
        Rpc::RegistryServiceHeartbeat => heartbeat("heartbeat", heartbeat_item()),
        Rpc::RegistryServiceBatchHeartbeat => heartbeat("heartbeats", json!([heartbeat_item()])),
        Rpc::RegistryServiceDeregisterNode => Sample::new(json!({"node_id": "$node"}))
            .or(json!({"allow_missing": true}))
            .missing("NODE_NOT_FOUND"),
        Rpc::RegistryServiceGetNode => Sample::new(json!({"node_id": "@node"})).public(),
        Rpc::RegistryServiceListNodes => Sample::new(json!({}))
            .or(json!({"owner": "$namespace"}))
            .public(),
        Rpc::RegistryServiceDiscoverNodes => Sample::new(json!({"node_type": "~type"}))
            .or(json!({"owner": "$namespace"}))
            .public(),
        _ => return None,
    };
    Some(sample)
}

fn heartbeat_item() -> Value {
    json!({"node_id": "$node", "metadata": {"text": "~metadata"}})
}

fn heartbeat(field: &str, items: Value) -> Sample {
    Sample::new(json!({ field: items }))
        .or(json!({field: {"health_status": "NODE_HEALTH_UNHEALTHY"}}))
        .or(json!({field: {"metadata": {"text": "~other"}}}))
        .missing("NODE_NOT_FOUND")
}
