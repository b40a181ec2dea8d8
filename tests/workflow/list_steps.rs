use bridgebook::proto::v1::{ListStepsRequest, ListStepsResponse};
use tonic::Status;

use crate::support::{App, Failure, Tenant, failure, new_id};

async fn list(tenant: &Tenant, request: ListStepsRequest) -> Result<ListStepsResponse, Status> {
    let request = ListStepsRequest {
        namespace: tenant.namespace.clone(),
        ..request
    };
    tenant
        .client
        .clone()
        .list_steps(request)
        .await
        .map(tonic::Response::into_inner)
}

fn of(workflow_id: &str) -> ListStepsRequest {
    ListStepsRequest {
        workflow_id: workflow_id.into(),
        ..ListStepsRequest::default()
    }
}

#[tokio::test]
async fn pages_through_the_steps_in_order() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let steps = (0..10)
        .rev()
        .map(|order| tenant.new_step(&workflow, order / 4));
    tenant.record_steps(steps.collect()).await;
    let mut request = ListStepsRequest {
        page_size: 3,
        ..of(&workflow.id)
    };
    let mut listed = Vec::new();
    loop {
        let page = list(&tenant, request.clone()).await.unwrap();
        assert!(page.steps.len() <= 3);
        listed.extend(page.steps);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, tenant.get(&workflow).await.steps);
    let orders: Vec<_> = listed.iter().map(|step| step.step_order).collect();
    assert_eq!(orders, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
}

#[tokio::test]
async fn a_foreign_workflow_is_not_found_and_an_empty_one_has_no_steps() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    assert!(
        list(&tenant, of(&workflow.id))
            .await
            .unwrap()
            .steps
            .is_empty()
    );
    tenant
        .record_steps(vec![tenant.new_step(&workflow, 1)])
        .await;
    assert_eq!(
        failure(list(&app.tenant(), of(&workflow.id)).await),
        Failure::no_workflow()
    );
    assert_eq!(
        failure(list(&tenant, of(&new_id())).await),
        Failure::no_workflow()
    );
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let bad = [
        ("workflow_id", of("")),
        (
            "page_size",
            ListStepsRequest {
                page_size: i32::MIN,
                ..of(&workflow.id)
            },
        ),
        (
            "page_token",
            ListStepsRequest {
                page_token: "x".into(),
                ..of(&workflow.id)
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
