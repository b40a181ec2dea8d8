use bridgebook::proto::v1::{
    DeleteWorkflowRequest, DeleteWorkflowResponse, ListStampsRequest, NewStamp, RecordStampRequest,
    Workflow, WorkflowState,
};
use futures_util::future::join_all;
use tonic::Status;

use crate::support::{App, Failure, Tenant, failure};

async fn delete(
    tenant: &Tenant,
    workflow_id: &str,
    allow_missing: bool,
) -> Result<DeleteWorkflowResponse, Status> {
    let request = DeleteWorkflowRequest {
        namespace: tenant.namespace.clone(),
        workflow_id: workflow_id.into(),
        allow_missing,
    };
    tenant
        .client
        .clone()
        .delete_workflow(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Makes a workflow with two steps and a stamp.
async fn full_workflow(tenant: &Tenant) -> Workflow {
    let workflow = tenant.start().await;
    let steps = [0, 1].map(|order| tenant.new_step(&workflow, order));
    tenant.record_steps(steps.to_vec()).await;
    let stamp = NewStamp {
        workflow_id: workflow.id.clone(),
        file_hash: "abc".into(),
        ..NewStamp::default()
    };
    let request = RecordStampRequest {
        namespace: tenant.namespace.clone(),
        stamp: Some(stamp),
    };
    tenant.client.clone().record_stamp(request).await.unwrap();
    workflow
}

#[tokio::test]
async fn steps_are_deleted_and_stamps_stay_without_a_workflow() {
    let (app, tenant) = App::with_tenant().await;
    let (gone, kept) = (full_workflow(&tenant).await, full_workflow(&tenant).await);
    assert!(delete(&tenant, &gone.id, false).await.unwrap().deleted);
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM workflow_steps")
            .await,
        2
    );
    let request = ListStampsRequest {
        namespace: tenant.namespace.clone(),
        ..ListStampsRequest::default()
    };
    let stamps = tenant
        .client
        .clone()
        .list_stamps(request)
        .await
        .unwrap()
        .into_inner()
        .stamps;
    let owners: Vec<_> = stamps.into_iter().map(|stamp| stamp.workflow_id).collect();
    assert_eq!(owners, [Some(kept.id), None]);
}

#[tokio::test]
async fn the_journal_stays_and_records_the_deletion() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    tenant
        .transition(tenant.to(&workflow, WorkflowState::Processing))
        .await;
    delete(&tenant, &workflow.id, false).await.unwrap();
    let rows = format!(
        "SELECT count(*) FROM fsm_transitions WHERE entity_id = '{}' AND
         (from_state, to_state, transition_event) IN (('PENDING', 'PROCESSING', 'process'),
                                                      ('PROCESSING', 'DELETED', 'delete'))",
        workflow.id
    );
    assert_eq!(app.schema.count(&rows).await, 2);
}

#[tokio::test]
async fn a_missing_row_is_not_found_unless_allow_missing() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let stranger = app.tenant();
    assert_eq!(
        failure(delete(&stranger, &workflow.id, false).await),
        Failure::no_workflow()
    );
    assert!(!delete(&stranger, &workflow.id, true).await.unwrap().deleted);
    assert!(delete(&tenant, &workflow.id, true).await.unwrap().deleted);
    assert!(!delete(&tenant, &workflow.id, true).await.unwrap().deleted);
    assert_eq!(
        failure(delete(&tenant, &workflow.id, false).await),
        Failure::no_workflow()
    );
    assert_eq!(
        failure(delete(&tenant, "x", true).await),
        Failure::invalid(&["workflow_id"])
    );
}

#[tokio::test]
async fn one_of_many_concurrent_deletions_deletes() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = full_workflow(&tenant).await;
    let calls = join_all((0..30).map(|_| delete(&tenant, &workflow.id, true))).await;
    let deleted = calls
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().deleted);
    assert_eq!(deleted.count(), 1);
    let rows = "SELECT count(*) FROM fsm_transitions WHERE to_state = 'DELETED'";
    assert_eq!(app.schema.count(rows).await, 1);
}
