use bridgebook::proto::v1::{
    ListWorkflowsRequest, StartWorkflowRequest, TransitionWorkflowRequest, WorkflowState,
};
use diesel_async::SimpleAsyncConnection;
use tonic::Code;

use crate::support::{
    ANY_WINDOW, App, Failure, Wire, call_with_timeout, document, eventually, failure, new_id,
};

#[tokio::test]
async fn a_write_past_its_deadline_still_completes() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let mut blocker = app.schema.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE fsm_transitions")
        .await
        .unwrap();
    let wanted = TransitionWorkflowRequest {
        transition_id: new_id(),
        ..tenant.to(&workflow, WorkflowState::Processing)
    };
    let method = "bridgebook.v1.WorkflowService/TransitionWorkflow";
    let late = call_with_timeout(app.address, method, &wanted, "150m").await;
    let expected = Failure::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert_eq!(failure(late), expected);
    blocker.batch_execute("COMMIT").await.unwrap();
    eventually("the move is made", || async {
        let now = tenant.get(&workflow).await.workflow.unwrap();
        (now.current_state() == WorkflowState::Processing).then_some(())
    })
    .await;
    assert!(!tenant.transition(wanted).await.applied);
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_its_batch_is_dropped() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let mut blocker = app.schema.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE workflow_steps IN SHARE MODE")
        .await
        .unwrap();
    let record = |order| {
        let step = tenant.new_step(&workflow, order);
        let request = bridgebook::proto::v1::RecordStepRequest {
            namespace: tenant.namespace.clone(),
            step: Some(step),
        };
        let mut client = tenant.client.clone();
        tokio::spawn(async move { client.record_step(request).await })
    };
    // The first call blocks its worker, and the second one waits behind it.
    let first = record(1);
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'workflow_steps'::regclass";
    eventually("the first is at the lock", || async {
        (app.schema.count(waiting).await == 1).then_some(())
    })
    .await;
    let gone = record(2);
    // The call is in the queue once a later call over the same channel is answered.
    tenant.get(&workflow).await;
    gone.abort();
    let _ = gone.await;
    tenant.get(&workflow).await;
    let last = record(3);
    blocker.batch_execute("COMMIT").await.unwrap();
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    let orders = tenant
        .get(&workflow)
        .await
        .steps
        .into_iter()
        .map(|step| step.step_order);
    assert_eq!(orders.collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_a_reason() {
    let (_app, tenant) = App::with_tenant().await;
    let request = StartWorkflowRequest {
        metadata: document(serde_json::json!({ "x": "y".repeat(5 * 1024 * 1024) })),
        ..tenant.new_workflow()
    };
    let refused = tenant.client.clone().start_workflow(request).await;
    let expected = Failure::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
    assert_eq!(failure(refused), expected);
}

#[tokio::test]
async fn an_error_is_a_trailers_only_response() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let list = "bridgebook.v1.WorkflowService/ListWorkflows";
    let refused = wire.send(list, &ListWorkflowsRequest::default()).await;
    let refused = refused.await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "3");
    assert!(refused.body().is_end_stream());
}
