//! Documents that are within their limits, but not within one response.

use bridgebook::{
    domain::json::Struct,
    proto::v1::{
        ListStepsRequest, ListTransitionsRequest, NewStep, StartWorkflowRequest,
        TransitionWorkflowRequest, Workflow, WorkflowState,
    },
};
use serde_json::json;

use crate::{
    fsm,
    support::{App, Tenant, document, new_id},
};

/// Returns a document of `count` times 11 bytes as protobuf.
fn ones(count: usize) -> Option<Struct> {
    document(json!({"n": vec![1; count]}))
}

async fn start_large(tenant: &Tenant) -> Workflow {
    let request = StartWorkflowRequest {
        metadata: ones(280_000),
        ..tenant.new_workflow()
    };
    tenant.start_as(request).await
}

#[tokio::test]
async fn a_response_leaves_out_transition_data_that_does_not_fit() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = start_large(&tenant).await;
    let request = TransitionWorkflowRequest {
        transition_id: new_id(),
        transition_data: ones(110_000),
        ..tenant.to(&workflow, WorkflowState::Processing)
    };
    let moved = tenant.transition(request.clone()).await;
    let retried = tenant.transition(request.clone()).await;
    assert!(moved.applied && !retried.applied);
    for answer in [moved, retried] {
        let (workflow, transition) = (answer.workflow.unwrap(), answer.transition.unwrap());
        assert!(workflow.omitted_fields.is_empty());
        assert_eq!(workflow.metadata, ones(280_000));
        assert_eq!(transition.omitted_fields, ["transition_data"]);
        assert_eq!(transition.transition_data, None);
    }
    let history = ListTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "workflow".into(),
        entity_id: workflow.id,
        to_state: "PROCESSING".into(),
        ..ListTransitionsRequest::default()
    };
    let history = fsm::client(&tenant).list_transitions(history).await;
    let stored = history.unwrap().into_inner().transitions.remove(0);
    assert_eq!(stored.transition_data, request.transition_data);
}

#[tokio::test]
async fn a_response_leaves_out_steps_that_do_not_fit_beside_their_workflow() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = start_large(&tenant).await;
    let large = NewStep {
        step_data: ones(110_000),
        ..tenant.new_step(&workflow, 1)
    };
    tenant
        .record_steps(vec![large.clone(), tenant.new_step(&workflow, 2)])
        .await;
    let read = tenant.get(&workflow).await;
    assert_eq!(read.workflow.unwrap().metadata, ones(280_000));
    let steps = read.steps.iter();
    let steps: Vec<_> = steps.map(|it| it.omitted_fields.as_slice()).collect();
    assert_eq!(steps, [["step_data".to_owned()].as_slice()]);
    assert!(!read.next_steps_page_token.is_empty());
    let list = ListStepsRequest {
        namespace: tenant.namespace.clone(),
        workflow_id: workflow.id,
        ..ListStepsRequest::default()
    };
    let list = tenant.client.clone().list_steps(list).await;
    let steps = list.unwrap().into_inner().steps;
    assert_eq!(steps[0].step_data, large.step_data);
    assert_eq!(steps.len(), 2);
}
