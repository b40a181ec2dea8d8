use bridgebook::proto::v1::{
    ListBridgeStatesRequest, ListBridgeStatesResponse, UpsertBridgeStateRequest,
};
use serde_json::json;
use tonic::Status;

use super::{accumulate, batch, bridge, client, get, new_bridge, upsert};
use crate::support::{App, Failure, Tenant, document, failure};

fn all(tenant: &Tenant) -> ListBridgeStatesRequest {
    ListBridgeStatesRequest {
        namespace: tenant.namespace.clone(),
        ..ListBridgeStatesRequest::default()
    }
}

async fn list(
    tenant: &Tenant,
    request: ListBridgeStatesRequest,
) -> Result<ListBridgeStatesResponse, Status> {
    let answer = client(tenant).list_bridge_states(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn ids(tenant: &Tenant, request: ListBridgeStatesRequest) -> Vec<String> {
    let page = list(tenant, request).await.unwrap();
    page.bridge_states
        .into_iter()
        .map(|it| it.bridge_id)
        .collect()
}

#[tokio::test]
async fn the_latest_aggregation_comes_first_and_every_filter_must_match() {
    let (app, tenant) = App::with_tenant().await;
    new_bridge(&app.tenant()).await;
    let a = new_bridge(&tenant).await;
    let b = new_bridge(&tenant).await;
    let c = new_bridge(&tenant).await;
    accumulate(&tenant, batch(&tenant, &a, 1)).await.unwrap();
    let idle = UpsertBridgeStateRequest {
        current_fsm_state: "IDLE".into(),
        aggregation_metadata: document(json!({"tags": ["x", "y"]})),
        ..bridge(&tenant, &b)
    };
    upsert(&tenant, idle).await.unwrap();
    let expected = [a.clone(), c.clone(), b.clone()];
    assert_eq!(ids(&tenant, all(&tenant)).await, expected);
    let active = ListBridgeStatesRequest {
        current_fsm_state: "ACTIVE".into(),
        ..all(&tenant)
    };
    assert_eq!(ids(&tenant, active).await, expected[..2]);
    let tagged = ListBridgeStatesRequest {
        aggregation_metadata: document(json!({"tags": ["y"]})),
        ..all(&tenant)
    };
    assert_eq!(ids(&tenant, tagged).await, expected[2..]);
    let since_c = get(&tenant, &c).await.unwrap().created_at;
    let after = ListBridgeStatesRequest {
        active_after: since_c,
        ..all(&tenant)
    };
    assert_eq!(ids(&tenant, after).await, expected[..1]);
    let before = ListBridgeStatesRequest {
        active_before: since_c,
        ..all(&tenant)
    };
    assert_eq!(ids(&tenant, before).await, expected[2..]);
}

#[tokio::test]
async fn pages_cover_everything_once() {
    let (_app, tenant) = App::with_tenant().await;
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.insert(0, new_bridge(&tenant).await);
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = ListBridgeStatesRequest {
            page_size: 3,
            page_token: token,
            ..all(&tenant)
        };
        let page = list(&tenant, request).await.unwrap();
        seen.extend(page.bridge_states.into_iter().map(|it| it.bridge_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let bad = [
        (
            "current_fsm_state",
            ListBridgeStatesRequest {
                current_fsm_state: "a\nb".into(),
                ..all(&tenant)
            },
        ),
        (
            "page_size",
            ListBridgeStatesRequest {
                page_size: -1,
                ..all(&tenant)
            },
        ),
        (
            "page_token",
            ListBridgeStatesRequest {
                page_token: "AA".into(),
                ..all(&tenant)
            },
        ),
        (
            "aggregation_metadata",
            ListBridgeStatesRequest {
                aggregation_metadata: document(json!({"\0": 1})),
                ..all(&tenant)
            },
        ),
        (
            "aggregation_metadata",
            ListBridgeStatesRequest {
                aggregation_metadata: document(json!({"a": vec![1; 17]})),
                ..all(&tenant)
            },
        ),
        (
            "active_after",
            ListBridgeStatesRequest {
                active_after: Some(prost_types::Timestamp {
                    seconds: i64::MIN,
                    nanos: 0,
                }),
                ..all(&tenant)
            },
        ),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(list(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
}
