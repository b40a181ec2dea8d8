use bridgebook::proto::v1::{ListEntitiesRequest, ListEntitiesResponse};
use tonic::Status;

use super::{client, new_order, record, transition};
use crate::support::{App, Failure, Tenant, failure};

fn orders(tenant: &Tenant) -> ListEntitiesRequest {
    ListEntitiesRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        ..ListEntitiesRequest::default()
    }
}

async fn list(
    tenant: &Tenant,
    request: ListEntitiesRequest,
) -> Result<ListEntitiesResponse, Status> {
    let answer = client(tenant).list_entities(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn ids(tenant: &Tenant, request: ListEntitiesRequest) -> Vec<String> {
    let page = list(tenant, request).await.unwrap();
    page.entities.into_iter().map(|it| it.entity_id).collect()
}

#[tokio::test]
async fn entities_longest_in_their_state_come_first() {
    let (app, tenant) = App::with_tenant().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(new_order(&tenant).await);
    }
    new_order(&app.tenant()).await;
    record(&tenant, transition(&expected[1], "pay", "PAID"))
        .await
        .unwrap();
    let moved = expected.remove(1);
    expected.push(moved.clone());
    assert_eq!(ids(&tenant, orders(&tenant)).await, expected);

    let paid = ListEntitiesRequest {
        current_state: "PAID".into(),
        ..orders(&tenant)
    };
    assert_eq!(
        ids(&tenant, paid.clone()).await,
        std::slice::from_ref(&moved)
    );
    let since = list(&tenant, paid).await.unwrap().entities[0].state_since;
    let before = ListEntitiesRequest {
        state_since_before: since,
        ..orders(&tenant)
    };
    assert_eq!(ids(&tenant, before).await, expected[..4]);
    let other = ListEntitiesRequest {
        entity_type: "parcel".into(),
        ..orders(&tenant)
    };
    assert!(ids(&tenant, other).await.is_empty());
}

#[tokio::test]
async fn an_entity_that_moves_between_pages_moves_to_the_end() {
    let (_app, tenant) = App::with_tenant().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(new_order(&tenant).await);
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = ListEntitiesRequest {
            page_size: 2,
            page_token: token,
            ..orders(&tenant)
        };
        let page = list(&tenant, request).await.unwrap();
        seen.extend(page.entities.into_iter().map(|it| it.entity_id));
        token = page.next_page_token;
        if seen.len() == 2 {
            record(&tenant, transition(&expected[3], "pay", "PAID"))
                .await
                .unwrap();
        }
        if token.is_empty() {
            break;
        }
    }
    let moved = expected.remove(3);
    expected.push(moved);
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let bad = [
        (
            "entity_type",
            ListEntitiesRequest {
                entity_type: String::new(),
                ..orders(&tenant)
            },
        ),
        (
            "entity_type",
            ListEntitiesRequest {
                entity_type: "workflow".into(),
                ..orders(&tenant)
            },
        ),
        (
            "current_state",
            ListEntitiesRequest {
                current_state: "\0".into(),
                ..orders(&tenant)
            },
        ),
        (
            "page_size",
            ListEntitiesRequest {
                page_size: -1,
                ..orders(&tenant)
            },
        ),
        (
            "page_token",
            ListEntitiesRequest {
                page_token: "x".into(),
                ..orders(&tenant)
            },
        ),
        (
            "state_since_before",
            ListEntitiesRequest {
                state_since_before: Some(prost_types::Timestamp {
                    seconds: 0,
                    nanos: -1,
                }),
                ..orders(&tenant)
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
