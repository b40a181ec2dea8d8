//! Calls that their caller cancels.

use std::time::Duration;

use bridgebook::{
    client::retry::with_retries,
    proto::v1::{
        AccumulateBridgeStateRequest, GetWorkflowRequest, GetWorkflowResponse, ListStampsRequest,
        ListStampsResponse, ListWorkflowsRequest,
        bridge_state_service_client::BridgeStateServiceClient, get_workflow_request::Key,
    },
};
use diesel_async::SimpleAsyncConnection;
use futures_util::{StreamExt, future::join_all, stream};
use tonic::{Code, Request, Response, Status};

use crate::support::{App, Tenant, WAITING_FOR_LOCK, eventually, new_id};

/// Longer than any call takes.
const LONG: Duration = Duration::from_secs(20);

/// The number of calls, and how many run at a time.
const CALLS: usize = 10_000;
const AT_A_TIME: usize = 100;

async fn list_stamps(
    tenant: &Tenant,
    patience: Duration,
) -> Result<Response<ListStampsResponse>, Status> {
    let mut request = Request::new(ListStampsRequest {
        namespace: tenant.namespace.clone(),
        ..ListStampsRequest::default()
    });
    request.set_timeout(patience);
    tenant.client.clone().list_stamps(request).await
}

#[tokio::test]
async fn a_cancelled_call_cancels_its_query_in_postgresql() {
    let (app, tenant) = App::with_tenant().await;
    let mut blocker = app.schema.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE metadata_stamps")
        .await
        .unwrap();
    let call = list_stamps(&tenant, LONG);
    tokio::select! {
        answer = call => panic!("it did not wait: {answer:?}"),
        () = eventually("it waits", || async {
            (app.schema.sessions(WAITING_FOR_LOCK).await == 1).then_some(())
        }) => {}
    }
    eventually("it is cancelled", || async {
        (app.schema.sessions(WAITING_FOR_LOCK).await == 0).then_some(())
    })
    .await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    list_stamps(&tenant, LONG).await.unwrap();
}

/// Makes one of several calls.
async fn call(app: &App, tenant: &Tenant, number: usize, workflow_id: String, bridge_id: String) {
    let namespace = tenant.namespace.clone();
    let mut workflows = tenant.client.clone();
    match number % 5 {
        0 => {
            let mut request = tenant.new_workflow();
            request.id = workflow_id;
            let _ = workflows.start_workflow(request).await;
        }
        1 => {
            let _ = get(tenant, workflow_id).await;
        }
        2 => {
            let request = ListWorkflowsRequest {
                namespace,
                ..ListWorkflowsRequest::default()
            };
            let _ = workflows.list_workflows(request).await;
        }
        3 => {
            let _ = list_stamps(tenant, LONG).await;
        }
        _ => {
            let request = AccumulateBridgeStateRequest {
                namespace,
                bridge_id,
                batch_id: new_id(),
                workflows_processed: 1,
                current_fsm_state: "ACTIVE".into(),
                ..AccumulateBridgeStateRequest::default()
            };
            let mut bridges = BridgeStateServiceClient::new(app.channel.clone());
            let _ = bridges.accumulate_bridge_state(request).await;
        }
    }
}

async fn get(tenant: &Tenant, id: String) -> Result<Response<GetWorkflowResponse>, Status> {
    let request = GetWorkflowRequest {
        namespace: tenant.namespace.clone(),
        key: Some(Key::Id(id)),
        include_stamps: false,
    };
    tenant.client.clone().get_workflow(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_dropped_calls_leave_nothing_behind() {
    let (app, tenant) = App::with_tenant().await;
    let (app, tenant, bridge_id) = (&app, &tenant, new_id());
    let ids: Vec<_> = (0..CALLS).map(|_| new_id()).collect();
    stream::iter(ids.iter().enumerate())
        .for_each_concurrent(AT_A_TIME, |(number, id)| {
            let call = call(app, tenant, number, id.clone(), bridge_id.clone());
            // Between before the send and after the answer.
            let patience = Duration::from_micros(fastrand::u64(0..20_000));
            async move { drop(tokio::time::timeout(patience, call).await) }
        })
        .await;

    eventually("nothing is under way in PostgreSQL", || async {
        (app.schema.sessions("state <> 'idle'").await == 0).then_some(())
    })
    .await;
    // More calls than connections, so that every connection is used. The service may still be busy
    // with calls that it has not seen cancelled.
    let lists = (0..64).map(|_| with_retries(LONG, || list_stamps(tenant, LONG)));
    let lists = join_all(lists).await;
    assert!(lists.iter().all(Result::is_ok), "{lists:?}");
    let gets = ids
        .iter()
        .map(|id| with_retries(LONG, || get(tenant, id.clone())));
    let gets = join_all(gets).await;
    let mut found = 0;
    for (id, answer) in ids.iter().zip(gets) {
        match answer {
            Ok(answer) => {
                found += 1;
                assert_eq!(answer.workflow.unwrap().id, *id);
            }
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status:?}"),
        }
    }
    let stored = app
        .schema
        .count("SELECT count(*) FROM workflow_executions")
        .await;
    assert_eq!(stored, found);
    assert!(found > 0, "no call came as far as that");
    let wrong = "SELECT count(*) FROM bridge_states WHERE total_workflows_processed <>
                     (SELECT count(*) FROM bridge_batches)";
    assert_eq!(app.schema.count(wrong).await, 0);
}
