use std::time::Duration;

use bridgebook::proto::v1::{
    DeleteWorkflowRequest, DeleteWorkflowResponse, GetWorkflowRequest, ListStampsRequest,
    ListStepsRequest, ListWorkflowsRequest, NewStamp, RecordStampRequest, RecordStepRequest,
    StartWorkflowRequest, Workflow, WorkflowState, get_workflow_request::Key,
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use tonic::Status;

use crate::support::{App, Failure, Tenant, eventually, failure};

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

/// Gives a workflow 2000 steps and stamps each. A trigger delays each delete and each change of
/// one, so that all of them together would take longer than a batch may.
async fn grow(app: &App, tenant: &Tenant, workflow: &Workflow) {
    let (id, namespace) = (&workflow.id, &tenant.namespace);
    let sql = format!(
        "INSERT INTO workflow_steps (id, namespace, workflow_id, step_name, step_order, status)
         SELECT gen_random_uuid(), '{namespace}', '{id}', 'step', number, 'COMPLETED'
           FROM generate_series(1, 2000) number;
         INSERT INTO metadata_stamps (id, namespace, workflow_id, file_hash)
         SELECT gen_random_uuid(), '{namespace}', '{id}', 'hash' FROM generate_series(1, 2000);
         CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(0.01);
             RETURN coalesce(NEW, OLD);
         END $$;
         CREATE TRIGGER is_slow BEFORE DELETE ON workflow_steps
             FOR EACH ROW EXECUTE FUNCTION delay();
         CREATE TRIGGER is_slow BEFORE UPDATE ON metadata_stamps
             FOR EACH ROW EXECUTE FUNCTION delay()"
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&sql).await.unwrap();
}

/// Fails unless the workflow is gone for every RPC of the tenant.
async fn assert_gone(tenant: &Tenant, workflow: &Workflow) {
    let (mut client, namespace) = (tenant.client.clone(), tenant.namespace.clone());
    let id = workflow.id.clone();
    let get = GetWorkflowRequest {
        namespace: namespace.clone(),
        key: Some(Key::Id(id.clone())),
        include_stamps: true,
    };
    let steps = ListStepsRequest {
        namespace: namespace.clone(),
        workflow_id: id,
        ..ListStepsRequest::default()
    };
    let step = RecordStepRequest {
        namespace: namespace.clone(),
        step: Some(tenant.new_step(workflow, 0)),
    };
    let moved = tenant.to(workflow, WorkflowState::Processing);
    let gone = Failure::no_workflow();
    assert_eq!(failure(client.get_workflow(get).await), gone);
    assert_eq!(failure(client.list_steps(steps).await), gone);
    assert_eq!(failure(client.record_step(step).await), gone);
    assert_eq!(failure(client.transition_workflow(moved).await), gone);
    assert_eq!(failure(delete(tenant, &workflow.id, false).await), gone);
    let list = ListWorkflowsRequest {
        namespace,
        ..ListWorkflowsRequest::default()
    };
    let list = client.list_workflows(list).await.unwrap().into_inner();
    assert!(list.workflows.is_empty());
}

#[tokio::test]
async fn a_workflow_with_many_steps_and_stamps_is_gone_at_once_and_removed_in_parts() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    grow(&app, &tenant, &workflow).await;
    assert!(delete(&tenant, &workflow.id, false).await.unwrap().deleted);
    assert_gone(&tenant, &workflow).await;
    let deletions = "SELECT count(*) FROM fsm_transitions WHERE to_state = 'DELETED'";
    assert_eq!(app.schema.count(deletions).await, 1);
    let again = tenant.start_as(StartWorkflowRequest {
        correlation_id: workflow.correlation_id.clone(),
        ..tenant.new_workflow()
    });
    assert_ne!(again.await.id, workflow.id);

    let mut connection = app.schema.connect().await;
    let fast = "DROP TRIGGER is_slow ON workflow_steps; DROP TRIGGER is_slow ON metadata_stamps";
    connection.batch_execute(fast).await.unwrap();
    let pruning = App::start_on(app.schema.clone(), |config| {
        config.prune_interval = Duration::from_millis(20);
    });
    let _pruning = pruning.await;
    let left = format!(
        "SELECT (SELECT count(*) FROM workflow_executions WHERE id = '{id}')
              + (SELECT count(*) FROM workflow_steps)
              + (SELECT count(*) FROM metadata_stamps WHERE workflow_id IS NOT NULL)",
        id = workflow.id
    );
    eventually("nothing of it is left", || async {
        (app.schema.count(&left).await == 0).then_some(())
    })
    .await;
    let stamps = "SELECT count(*) FROM metadata_stamps";
    assert_eq!(app.schema.count(stamps).await, 2000);
}
