//! Rows that appear or vanish between two statements of a call.

use bridgebook::proto::v1::{self, StartWorkflowRequest};
use diesel_async::SimpleAsyncConnection;
use tonic::Status;

use crate::support::{App, Failure, Tenant, failure, new_id};

async fn start(tenant: &Tenant, request: StartWorkflowRequest) -> Result<bool, Status> {
    let answer = tenant.client.clone().start_workflow(request).await;
    answer.map(|answer| answer.into_inner().created)
}

async fn execute(app: &App, sql: &str) {
    let mut database = app.schema.connect().await;
    database.batch_execute(sql).await.unwrap();
}

/// The workflow that has the correlation_id or the id is deleted after the insert has met it.
#[tokio::test]
async fn a_workflow_starts_if_the_one_with_its_ids_vanishes() {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    for is_id_taken in [false, true] {
        let taken = tenant.start().await;
        let request = match is_id_taken {
            true => StartWorkflowRequest {
                id: taken.id.clone(),
                ..tenant.new_workflow()
            },
            false => StartWorkflowRequest {
                correlation_id: taken.correlation_id.clone(),
                workflow_type: "other".into(),
                ..tenant.new_workflow()
            },
        };
        let refused = start(&tenant, request.clone()).await;
        assert_eq!(failure(refused), Failure::id_conflict());
        let mut find = tap.hold("SELECT item.correlation_id");
        let call = tokio::spawn({
            let tenant = tenant.clone();
            async move { start(&tenant, request).await }
        });
        find.reached().await;
        execute(&app, "DELETE FROM workflow_executions").await;
        drop(find);
        assert!(call.await.unwrap().unwrap());
    }
}

/// The workflow that a call started is deleted before the call runs again, because its answer
/// was lost.
#[tokio::test]
async fn a_deleted_workflow_does_not_start_again() {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    tap.lose_commit("INSERT INTO workflow_executions");
    // The second try.
    let request = tenant.new_workflow();
    let call = tokio::spawn({
        let tenant = tenant.clone();
        async move { start(&tenant, request).await }
    });
    crate::support::eventually("the answer is lost", || async {
        tap.has_lost_commit().then_some(())
    })
    .await;
    let mut again = tap.hold("INSERT INTO workflow_executions");
    again.reached().await;
    execute(&app, "DELETE FROM workflow_executions").await;
    drop(again);
    let contended = Failure::new(tonic::Code::Aborted, "CONTENDED");
    assert_eq!(failure(call.await.unwrap()), contended);
    let stored = "SELECT count(*) FROM workflow_executions";
    assert_eq!(app.schema.count(stored).await, 0);
    let journal = "SELECT count(*) FROM fsm_transitions";
    assert_eq!(app.schema.count(journal).await, 1);
}

/// The row with the id vanishes, and before the next try another replica stores the same step.
#[tokio::test]
async fn a_step_that_another_replica_records_meanwhile_is_no_conflict() {
    let (app, tap) = App::tapped().await;
    let replica = app.replica().await;
    let tenant = app.tenant();
    let elsewhere = Tenant {
        client: v1::workflow_service_client::WorkflowServiceClient::new(replica.channel.clone()),
        channel: replica.channel.clone(),
        ..tenant.clone()
    };
    let workflow = tenant.start().await;
    let id = new_id();
    let step = |order| v1::RecordStepRequest {
        namespace: tenant.namespace.clone(),
        step: Some(v1::NewStep {
            id: id.clone(),
            ..tenant.new_step(&workflow, order)
        }),
    };
    let record = async |tenant: &Tenant, request| {
        let answer = tenant.client.clone().record_step(request).await;
        answer.map(|answer| answer.into_inner().created)
    };
    assert!(record(&tenant, step(1)).await.unwrap());
    let mut find = tap.hold("SELECT item.id");
    let call = tokio::spawn({
        let (mut client, request) = (tenant.client.clone(), step(2));
        async move { client.record_step(request).await }
    });
    find.reached().await;
    execute(&app, "DELETE FROM workflow_steps").await;
    let mut insert = tap.hold("INSERT INTO workflow_steps");
    drop(find);
    insert.reached().await;
    assert!(record(&elsewhere, step(2)).await.unwrap());
    drop(insert);
    let answer = call.await.unwrap().unwrap().into_inner();
    assert!(!answer.created);
}
