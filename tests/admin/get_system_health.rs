use bridgebook::proto::v1::{
    GetSystemHealthRequest, GetSystemHealthResponse, NodeFleetHealth, StartWorkflowRequest,
    WorkflowHealth, WorkflowState,
};
use diesel_async::SimpleAsyncConnection;
use tonic::Status;

use super::client;
use crate::support::{App, Failure, failure};

async fn health(app: &App, seconds: Option<i64>) -> Result<GetSystemHealthResponse, Status> {
    let request = GetSystemHealthRequest {
        started_within: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    let answer = client(app).get_system_health(request).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn workflows_of_all_tenants_are_counted_within_the_window() {
    let (app, tenant) = App::with_tenant().await;
    for state in [
        WorkflowState::Completed,
        WorkflowState::Failed,
        WorkflowState::Cancelled,
    ] {
        let another = app.tenant();
        let workflow = another.start_processing().await;
        another.transition(another.to(&workflow, state)).await;
    }
    tenant.start().await;
    tenant.start_processing().await;
    let old = prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 0,
    };
    tenant
        .start_as(StartWorkflowRequest {
            started_at: Some(old),
            ..tenant.new_workflow()
        })
        .await;
    let expected = WorkflowHealth {
        total: 5,
        completed: 1,
        failed: 1,
        in_progress: 1,
        pending: 1,
        cancelled: 1,
    };
    assert_eq!(health(&app, None).await.unwrap().workflows, Some(expected));
    let all = health(&app, Some(100_000_000_000))
        .await
        .unwrap()
        .workflows
        .unwrap();
    assert_eq!((all.total, all.pending), (6, 2));
}

#[tokio::test]
async fn nodes_are_counted_by_health_and_by_their_own_ttl() {
    let app = App::start().await;
    let sql = "INSERT INTO node_registrations
                   (node_id, owner, node_type, node_version, health_status, heartbeat_ttl_ms, last_heartbeat)
               VALUES ('a', 'x', 't', '1', 'HEALTHY', 300000, now()),
                      ('b', 'x', 't', '1', 'HEALTHY', 300000, now() - INTERVAL '4 minutes'),
                      ('c', 'x', 't', '1', 'HEALTHY', 60000, now() - INTERVAL '4 minutes'),
                      ('d', 'x', 't', '1', 'DEGRADED', 300000, now()),
                      ('e', 'x', 't', '1', 'UNHEALTHY', 300000, now() - INTERVAL '1 day')";
    app.schema.connect().await.batch_execute(sql).await.unwrap();
    let expected = NodeFleetHealth {
        total: 5,
        healthy: 3,
        unhealthy: 1,
        stale: 2,
        degraded: 1,
        sweeper_paused: false,
        paused_fleets: 0,
    };
    assert_eq!(health(&app, None).await.unwrap().nodes, Some(expected));
    let silence = "UPDATE node_registrations SET last_heartbeat = now() - heartbeat_ttl_ms * INTERVAL '1.5 ms'";
    app.schema
        .connect()
        .await
        .batch_execute(silence)
        .await
        .unwrap();
    let nodes = health(&app, None).await.unwrap().nodes.unwrap();
    assert_eq!(
        (nodes.stale, nodes.sweeper_paused, nodes.paused_fleets),
        (5, true, 1)
    );
}

#[tokio::test]
async fn an_invalid_window_is_named() {
    let app = App::start().await;
    for seconds in [0, -1, i64::MAX] {
        let failed = failure(health(&app, Some(seconds)).await);
        assert_eq!(failed, Failure::invalid(&["started_within"]));
    }
}
