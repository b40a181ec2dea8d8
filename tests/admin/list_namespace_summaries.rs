use bridgebook::proto::v1::{
    ListNamespaceSummariesRequest, NamespaceSummary, StartWorkflowRequest, WorkflowState,
};
use diesel_async::SimpleAsyncConnection;
use tonic::Status;

use super::client;
use crate::{
    bridge_state::new_bridge,
    support::{App, Failure, failure},
};

async fn summaries(
    app: &App,
    request: ListNamespaceSummariesRequest,
) -> Result<Vec<NamespaceSummary>, Status> {
    let answer = client(app).list_namespace_summaries(request).await;
    answer.map(|answer| answer.into_inner().summaries)
}

/// Makes three workflows and two bridges. A join of both would count six of each.
#[tokio::test]
async fn workflows_and_bridges_are_counted_separately() {
    let (app, both) = App::with_tenant().await;
    let bridges_only = app.tenant();
    let workflows_only = app.tenant();
    let day = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    for (tenant, count) in [(&both, 3), (&workflows_only, 2)] {
        for _ in 0..count {
            tenant.start().await;
        }
    }
    // The mean of two workflows: the third has not ended.
    let first = both.start_processing().await;
    both.transition(both.to(&first, WorkflowState::Completed))
        .await;
    let long = StartWorkflowRequest {
        started_at: day(1_700_000_000),
        current_state: WorkflowState::Processing.into(),
        ..both.new_workflow()
    };
    let long = both.start_as(long).await;
    let long = both.transition(both.to(&long, WorkflowState::Failed)).await;
    let long = long.workflow.unwrap().execution_time_ms.unwrap();
    for tenant in [&both, &both, &bridges_only] {
        new_bridge(tenant).await;
    }
    let rows = summaries(&app, ListNamespaceSummariesRequest::default())
        .await
        .unwrap();
    let counts: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.namespace.as_str(),
                row.total_workflows,
                row.bridge_count,
            )
        })
        .collect();
    let expected = [
        (both.namespace.as_str(), 5, 2),
        (&workflows_only.namespace, 2, 0),
        (&bridges_only.namespace, 0, 1),
    ];
    assert_eq!(counts, expected);
    let mean = rows[0].avg_execution_time_ms.unwrap();
    assert!(
        (mean - long as f64 / 2.0).abs() < 60_000.0,
        "{mean} of {long}"
    );
    assert_eq!(rows[1].avg_execution_time_ms, None);

    let hour = Some(prost_types::Duration {
        seconds: 3600,
        nanos: 0,
    });
    let recent = ListNamespaceSummariesRequest {
        limit: 1,
        started_within: hour,
    };
    let rows = summaries(&app, recent).await.unwrap();
    assert_eq!(
        (rows.len(), rows[0].total_workflows, rows[0].bridge_count),
        (1, 4, 2)
    );
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let app = App::start().await;
    let zero = Some(prost_types::Duration::default());
    let bad = ListNamespaceSummariesRequest {
        limit: -1,
        started_within: zero,
    };
    assert_eq!(
        failure(summaries(&app, bad).await),
        Failure::invalid(&["limit", "started_within"])
    );
}

#[tokio::test]
async fn the_default_limit_is_100_and_the_maximum_1000() {
    let app = App::start().await;
    let sql = "INSERT INTO bridge_states (bridge_id, namespace, current_fsm_state, revision)
               SELECT gen_random_uuid(), 'tenant-' || n, 'IDLE', 1 FROM generate_series(1, 1001) n";
    app.schema.connect().await.batch_execute(sql).await.unwrap();
    for (limit, expected) in [
        (0, 100),
        (1, 1),
        (1000, 1000),
        (1001, 1000),
        (i32::MAX, 1000),
    ] {
        let request = ListNamespaceSummariesRequest {
            limit,
            started_within: None,
        };
        let rows = summaries(&app, request).await.unwrap();
        assert_eq!(rows.len(), expected, "limit {limit}");
    }
}
