use bridgebook::proto::v1::{
    ListTransitionsRequest, ListTransitionsResponse, TransitionOrder, WorkflowState,
};
use tonic::Status;

use super::{client, new_order, record, states, transition};
use crate::support::{App, Failure, Tenant, failure, new_id};

fn of_orders(tenant: &Tenant) -> ListTransitionsRequest {
    ListTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        ..ListTransitionsRequest::default()
    }
}

async fn list(
    tenant: &Tenant,
    request: ListTransitionsRequest,
) -> Result<ListTransitionsResponse, Status> {
    let answer = client(tenant).list_transitions(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn events(tenant: &Tenant, request: ListTransitionsRequest) -> Vec<String> {
    let page = list(tenant, request).await.unwrap();
    page.transitions
        .into_iter()
        .map(|it| it.transition_event)
        .collect()
}

#[tokio::test]
async fn a_history_is_read_from_either_end() {
    let (_app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    new_order(&tenant).await;
    for (event, to) in [("pay", "PAID"), ("ship", "SHIPPED")] {
        record(&tenant, transition(&order, event, to))
            .await
            .unwrap();
    }
    let of_one = ListTransitionsRequest {
        entity_id: order.to_uppercase(),
        ..of_orders(&tenant)
    };
    assert_eq!(
        events(&tenant, of_one.clone()).await,
        ["create", "pay", "ship"]
    );
    let newest = ListTransitionsRequest {
        order: TransitionOrder::NewestFirst.into(),
        ..of_one
    };
    assert_eq!(events(&tenant, newest).await, ["ship", "pay", "create"]);
}

#[tokio::test]
async fn every_filter_must_match() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let paid = record(&tenant, transition(&order, "pay", "PAID"))
        .await
        .unwrap();
    let paid_at = paid.transition.unwrap().created_at;
    record(&tenant, transition(&order, "refund", "NEW"))
        .await
        .unwrap();
    record(&tenant, transition(&order, "pay", "PAID"))
        .await
        .unwrap();
    new_order(&app.tenant()).await;
    let all = of_orders(&tenant);
    let cases = [
        (all.clone(), vec!["create", "pay", "refund", "pay"]),
        (
            ListTransitionsRequest {
                transition_event: "pay".into(),
                ..all.clone()
            },
            vec!["pay", "pay"],
        ),
        (
            ListTransitionsRequest {
                from_state: "PAID".into(),
                ..all.clone()
            },
            vec!["refund"],
        ),
        (
            ListTransitionsRequest {
                to_state: "NEW".into(),
                ..all.clone()
            },
            vec!["create", "refund"],
        ),
        (
            ListTransitionsRequest {
                created_after: paid_at,
                ..all.clone()
            },
            vec!["refund", "pay"],
        ),
        (
            ListTransitionsRequest {
                created_before: paid_at,
                ..all.clone()
            },
            vec!["create"],
        ),
        (
            ListTransitionsRequest {
                to_state: "NEW".into(),
                created_after: paid_at,
                ..all.clone()
            },
            vec!["refund"],
        ),
        (
            ListTransitionsRequest {
                entity_id: new_id(),
                ..all.clone()
            },
            vec![],
        ),
        (
            ListTransitionsRequest {
                entity_type: "parcel".into(),
                ..all.clone()
            },
            vec![],
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(events(&tenant, request).await, expected);
    }
}

#[tokio::test]
async fn the_journal_has_the_transitions_of_workflows() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start_processing().await;
    tenant
        .transition(tenant.to(&workflow, WorkflowState::Completed))
        .await;
    let request = ListTransitionsRequest {
        entity_type: "workflow".into(),
        entity_id: workflow.id.clone(),
        ..of_orders(&tenant)
    };
    assert_eq!(events(&tenant, request).await, ["start", "complete"]);
}

#[tokio::test]
async fn pages_are_complete_in_both_orders_even_with_equal_times() {
    let (_app, tenant) = App::with_tenant().await;
    let order = new_id();
    let moves = (0..25).map(|number| transition(&order, "go", &format!("S{number}")));
    let request = bridgebook::proto::v1::BatchRecordTransitionsRequest {
        namespace: tenant.namespace.clone(),
        transitions: moves.collect(),
    };
    client(&tenant)
        .batch_record_transitions(request)
        .await
        .unwrap();
    let expected = states(&tenant, &order).await;
    assert_eq!(expected.len(), 25);
    for is_newest_first in [false, true] {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let request = ListTransitionsRequest {
                page_size: 4,
                page_token: token,
                entity_id: order.clone(),
                order: if is_newest_first {
                    2
                } else {
                    i32::from(seen.is_empty())
                },
                ..of_orders(&tenant)
            };
            let page = list(&tenant, request).await.unwrap();
            seen.extend(page.transitions.into_iter().map(|it| it.to_state));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        if is_newest_first {
            seen.reverse();
        }
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn reserved_namespaces_are_read_only_for_callers() {
    let (_app, tenant) = App::with_tenant().await;
    let reserved = Tenant {
        namespace: "bridgebook.registry".into(),
        ..tenant.clone()
    };
    let request = ListTransitionsRequest {
        entity_type: "node".into(),
        ..of_orders(&reserved)
    };
    assert!(events(&reserved, request).await.is_empty());
    let refused = failure(record(&reserved, transition(&new_id(), "go", "A")).await);
    assert_eq!(refused, Failure::invalid(&["namespace"]));
    let refused = tenant
        .client
        .clone()
        .start_workflow(reserved.new_workflow())
        .await;
    assert_eq!(failure(refused), Failure::invalid(&["namespace"]));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let all = of_orders(&tenant);
    let bad = [
        (
            "entity_type",
            ListTransitionsRequest {
                entity_type: String::new(),
                ..all.clone()
            },
        ),
        (
            "entity_id",
            ListTransitionsRequest {
                entity_id: "x".into(),
                ..all.clone()
            },
        ),
        (
            "transition_event",
            ListTransitionsRequest {
                transition_event: "\0".into(),
                ..all.clone()
            },
        ),
        (
            "from_state",
            ListTransitionsRequest {
                from_state: "a\nb".into(),
                ..all.clone()
            },
        ),
        (
            "to_state",
            ListTransitionsRequest {
                to_state: "a\nb".into(),
                ..all.clone()
            },
        ),
        (
            "order",
            ListTransitionsRequest {
                order: 3,
                ..all.clone()
            },
        ),
        (
            "page_size",
            ListTransitionsRequest {
                page_size: -1,
                ..all.clone()
            },
        ),
        (
            "page_token",
            ListTransitionsRequest {
                page_token: "x".into(),
                ..all.clone()
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
