use bridgebook::proto::v1::{
    GetBridgeStatsRequest, GetBridgeStatsResponse, UpsertBridgeStateRequest,
};

use super::{accumulate, batch, bridge, client, get, new_bridge, upsert};
use crate::support::{App, Tenant, new_id};

async fn stats(tenant: &Tenant) -> GetBridgeStatsResponse {
    let request = GetBridgeStatsRequest {
        namespace: tenant.namespace.clone(),
    };
    client(tenant)
        .get_bridge_stats(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn the_totals_of_all_bridges_are_summed() {
    let (app, tenant) = App::with_tenant().await;
    assert_eq!(stats(&tenant).await, GetBridgeStatsResponse::default());
    let stranger = app.tenant();
    let theirs = new_bridge(&stranger).await;
    accumulate(&stranger, batch(&stranger, &theirs, 100))
        .await
        .unwrap();
    let (a, b) = (new_bridge(&tenant).await, new_bridge(&tenant).await);
    for (id, items) in [(&a, 3), (&b, 4), (&a, 5)] {
        accumulate(&tenant, batch(&tenant, id, items))
            .await
            .unwrap();
    }
    new_bridge(&tenant).await;
    let expected = GetBridgeStatsResponse {
        total_workflows: 3,
        total_items: 12,
        bridge_count: 3,
        latest_activity: get(&tenant, &a).await.unwrap().last_aggregation_timestamp,
    };
    assert_eq!(stats(&tenant).await, expected);
}

#[tokio::test]
async fn sums_that_overflow_are_capped() {
    let (_app, tenant) = App::with_tenant().await;
    for _ in 0..3 {
        let request = UpsertBridgeStateRequest {
            total_items_aggregated: Some(i64::MAX),
            ..bridge(&tenant, &new_id())
        };
        upsert(&tenant, request).await.unwrap();
    }
    assert_eq!(stats(&tenant).await.total_items, i64::MAX);
}
