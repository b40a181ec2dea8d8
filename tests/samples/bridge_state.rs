//! Samples of BridgeStateService.

use bridgebook::proto::Rpc;
use serde_json::json;

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    let sample = match rpc {
        Rpc::BridgeStateServiceUpsertBridgeState => Sample::new(json!({
            "bridge_id": "+bridge",
            "aggregation_metadata": {"text": "~metadata"},
            "current_fsm_state": "~S1",
        }))
        .or(json!({"total_items_aggregated": "3"}))
        .or(json!({"current_fsm_state": "~S2"}))
        .or(json!({"aggregation_metadata": {"text": "~other"}})),
        Rpc::BridgeStateServiceAccumulateBridgeState => Sample::new(json!({
            "bridge_id": "+bridge",
            "batch_id": "&batch",
            "items_aggregated": "1",
            "aggregation_metadata": {"text": "~metadata"},
            "current_fsm_state": "~S1",
            "consumed_through": null,
            "consumed_from": null,
        }))
        .or(json!({"batch_id": "", "consumed_through": "$position"}))
        .or(json!({"consumed_through": "$position", "consumed_from": "$origin"}))
        .or(json!({"items_aggregated": "2"}))
        .or(json!({"current_fsm_state": "~S2"}))
        .or(json!({"aggregation_metadata": {"text": "~other"}}))
        .makes(&["bridge", "batch"]),
        Rpc::BridgeStateServiceGetBridgeState => {
            Sample::new(json!({"bridge_id": "$bridge"})).missing("BRIDGE_NOT_FOUND")
        }
        Rpc::BridgeStateServiceDeleteBridgeState => Sample::new(json!({"bridge_id": "$bridge"}))
            .or(json!({"allow_missing": true}))
            .missing("BRIDGE_NOT_FOUND"),
        Rpc::BridgeStateServiceListBridgeStates | Rpc::BridgeStateServiceGetBridgeStats => {
            Sample::new(json!({}))
        }
        _ => return None,
    };
    Some(sample)
}
