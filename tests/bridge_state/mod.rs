//! BridgeStateService, one file per RPC.

mod accumulate_bridge_state;
mod consumption;
mod delete_bridge_state;
mod delete_large_bridge;
mod get_bridge_state;
mod get_bridge_stats;
mod list_bridge_states;
mod machine;
mod upsert_bridge_state;

use bridgebook::proto::v1::{self, bridge_state_service_client::BridgeStateServiceClient};
use tonic::{Status, transport::Channel};

use crate::support::{Tenant, new_id};

pub fn client(tenant: &Tenant) -> BridgeStateServiceClient<Channel> {
    BridgeStateServiceClient::new(tenant.channel.clone())
}

/// Returns a request to store a bridge in the state ACTIVE.
pub fn bridge(tenant: &Tenant, bridge_id: &str) -> v1::UpsertBridgeStateRequest {
    v1::UpsertBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.into(),
        current_fsm_state: "ACTIVE".into(),
        ..v1::UpsertBridgeStateRequest::default()
    }
}

pub async fn upsert(
    tenant: &Tenant,
    request: v1::UpsertBridgeStateRequest,
) -> Result<v1::UpsertBridgeStateResponse, Status> {
    let answer = client(tenant).upsert_bridge_state(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Creates a bridge in the state ACTIVE.
pub async fn new_bridge(tenant: &Tenant) -> String {
    let id = new_id();
    upsert(tenant, bridge(tenant, &id)).await.expect("a bridge");
    id
}

/// Returns a request to add a batch of one workflow with some items.
pub fn batch(tenant: &Tenant, bridge_id: &str, items: i64) -> v1::AccumulateBridgeStateRequest {
    v1::AccumulateBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.into(),
        batch_id: new_id(),
        workflows_processed: 1,
        items_aggregated: items,
        ..v1::AccumulateBridgeStateRequest::default()
    }
}

pub async fn accumulate(
    tenant: &Tenant,
    request: v1::AccumulateBridgeStateRequest,
) -> Result<v1::AccumulateBridgeStateResponse, Status> {
    let answer = client(tenant).accumulate_bridge_state(request).await;
    answer.map(tonic::Response::into_inner)
}

pub async fn get(tenant: &Tenant, bridge_id: &str) -> Result<v1::BridgeState, Status> {
    let request = v1::GetBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.into(),
    };
    let answer = client(tenant).get_bridge_state(request).await;
    answer.map(|answer| answer.into_inner().bridge_state.expect("a bridge"))
}

/// Returns the totals of a bridge: workflows and items.
pub async fn totals(tenant: &Tenant, bridge_id: &str) -> (i64, i64) {
    let bridge = get(tenant, bridge_id).await.expect("a bridge");
    (
        bridge.total_workflows_processed,
        bridge.total_items_aggregated,
    )
}

/// Returns the events and states of a bridge's history.
pub async fn history(tenant: &Tenant, bridge_id: &str) -> Vec<(String, String)> {
    let request = v1::ListTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "bridge".into(),
        entity_id: bridge_id.into(),
        ..v1::ListTransitionsRequest::default()
    };
    let answer = crate::fsm::client(tenant).list_transitions(request).await;
    let rows = answer
        .expect("a history")
        .into_inner()
        .transitions
        .into_iter();
    rows.map(|row| (row.transition_event, row.to_state))
        .collect()
}
