//! What every RPC answers to another tenant.

use bridgebook::proto::v1;
use tonic::Code;

use super::{accumulate, batch, bridge, client, get, new_bridge, upsert};
use crate::support::{App, Failure, assert_complete, failure};

#[tokio::test]
async fn another_tenants_rows_can_neither_be_seen_nor_changed() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    accumulate(&tenant, batch(&tenant, &id, 5)).await.unwrap();
    let before = get(&tenant, &id).await.unwrap();

    let own = app.tenant();
    let namespace = own.namespace.clone();
    let mut rpc = client(&own);
    let mut tried = Vec::new();
    let no_bridge = Failure::new(Code::NotFound, "BRIDGE_NOT_FOUND");

    tried.push("UpsertBridgeState");
    let answer = upsert(&own, bridge(&own, &id)).await;
    assert_eq!(failure(answer), Failure::id_conflict());
    tried.push("AccumulateBridgeState");
    let answer = accumulate(&own, batch(&own, &id, 1)).await;
    assert_eq!(failure(answer), Failure::id_conflict());
    tried.push("GetBridgeState");
    assert_eq!(failure(get(&own, &id).await), no_bridge);
    tried.push("DeleteBridgeState");
    let request = v1::DeleteBridgeStateRequest {
        namespace: namespace.clone(),
        bridge_id: id.clone(),
        allow_missing: false,
    };
    assert_eq!(failure(rpc.delete_bridge_state(request).await), no_bridge);
    tried.push("ListBridgeStates");
    let request = v1::ListBridgeStatesRequest {
        namespace: namespace.clone(),
        ..Default::default()
    };
    assert!(
        rpc.list_bridge_states(request)
            .await
            .unwrap()
            .into_inner()
            .bridge_states
            .is_empty()
    );
    tried.push("GetBridgeStats");
    let answer = rpc
        .get_bridge_stats(v1::GetBridgeStatsRequest { namespace })
        .await
        .unwrap();
    assert_eq!(answer.into_inner().bridge_count, 0);

    assert_eq!(get(&tenant, &id).await.unwrap(), before);
    assert_complete("BridgeStateService", tried.into_iter());
}
