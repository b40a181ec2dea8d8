use serde_json::json;
use tonic::Code;

use super::{bridge, get, upsert};
use crate::support::{App, Failure, document, failure, new_id, value};

#[tokio::test]
async fn a_bridge_is_returned_as_it_was_stored() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    let mut request = bridge(&tenant, &id);
    request.total_workflows_processed = Some(3);
    request.total_items_aggregated = Some(17);
    request.aggregation_metadata = document(json!({"files": [1, 2]}));
    let stored = upsert(&tenant, request)
        .await
        .unwrap()
        .bridge_state
        .unwrap();
    let found = get(&tenant, &id).await.unwrap();
    assert_eq!(found, stored);
    assert_eq!(value(found.aggregation_metadata), json!({"files": [1, 2]}));
}

#[tokio::test]
async fn an_upper_case_id_finds_the_bridge() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    upsert(&tenant, bridge(&tenant, &id)).await.unwrap();
    let found = get(&tenant, &id.to_uppercase()).await.unwrap();
    assert_eq!(found.bridge_id, id);
}

#[tokio::test]
async fn a_missing_bridge_and_that_of_another_tenant_are_not_found() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let missing = failure(get(&tenant, &id).await);
    assert_eq!(missing, Failure::new(Code::NotFound, "BRIDGE_NOT_FOUND"));
    let other = app.tenant();
    upsert(&other, bridge(&other, &id)).await.unwrap();
    assert_eq!(failure(get(&tenant, &id).await), missing);
}
