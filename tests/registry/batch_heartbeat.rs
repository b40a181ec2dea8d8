use bridgebook::proto::v1::{
    BatchHeartbeatRequest, HeartbeatRequest, HeartbeatResponse, NodeHealth, NodeHeartbeat,
    heartbeat_result::Result as Outcome,
};
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};

use super::{client, get, journal, plain, register};
use crate::support::{App, Failure, Tenant, document, failure};

/// Returns the result of each item; a failed item looks like a failed call.
type Results = Vec<Result<HeartbeatResponse, Status>>;

async fn beat_all(tenant: &Tenant, heartbeats: Vec<NodeHeartbeat>) -> Result<Results, Status> {
    let request = BatchHeartbeatRequest {
        namespace: tenant.namespace.clone(),
        heartbeats,
    };
    let answer = client(tenant).batch_heartbeat(request).await?;
    let results = answer.into_inner().results.into_iter();
    Ok(results
        .map(|result| match result.result.expect("a result") {
            Outcome::Response(response) => Ok(response),
            Outcome::Error(error) => {
                let details = prost::Message::encode_to_vec(&error);
                let code = Code::from(error.code);
                Err(Status::with_details(code, error.message, details.into()))
            }
        })
        .collect())
}

#[tokio::test]
async fn updates_a_thousand_nodes_and_returns_results_in_order() {
    let (app, tenant) = App::with_tenant().await;
    let ids: Vec<_> = (0..1000).map(|number| format!("node-{number}")).collect();
    join_all(ids.iter().map(|id| register(&tenant, id))).await;
    let heartbeats = ids.iter().enumerate().map(|(number, id)| NodeHeartbeat {
        health_status: (number as i32 % 3) + 1,
        ..plain(id)
    });
    let results = beat_all(&tenant, heartbeats.collect()).await.unwrap();
    assert_eq!(results.len(), 1000);
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().health_status, (number as i32 % 3) + 1);
    }
    let moves = "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'heartbeat'";
    assert_eq!(app.schema.count(moves).await, 666);
}

#[tokio::test]
async fn invalid_and_unknown_nodes_fail_and_the_rest_succeed() {
    let (app, tenant) = App::with_tenant().await;
    register(&app.tenant(), "theirs").await;
    register(&tenant, "a").await;
    register(&tenant, "b").await;
    let items = vec![
        plain("a"),
        plain("nobody"),
        NodeHeartbeat {
            health_status: 7,
            ..plain("")
        },
        plain("theirs"),
        NodeHeartbeat {
            health_status: NodeHealth::Degraded.into(),
            ..plain("b")
        },
    ];
    let results = beat_all(&tenant, items).await.unwrap();
    let health: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().ok().map(|r| r.health_status))
        .collect();
    assert_eq!(health, [Some(1), None, None, None, Some(2)]);
    let failures: Vec<_> = results
        .into_iter()
        .filter(Result::is_err)
        .map(failure)
        .collect();
    let fields = ["heartbeats[2].node_id", "heartbeats[2].health_status"];
    let expected = [
        Failure::no_node(),
        Failure::invalid(&fields),
        Failure::no_node(),
    ];
    assert_eq!(failures, expected);
    assert_eq!(get(&tenant, "b").await.unwrap().health_status, 2);
}

#[tokio::test]
async fn two_heartbeats_of_a_node_in_one_batch_are_refused() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "a").await;
    let health = |health: NodeHealth| NodeHeartbeat {
        health_status: health.into(),
        ..plain("a")
    };
    let items = vec![
        health(NodeHealth::Degraded),
        plain("b"),
        health(NodeHealth::Unhealthy),
    ];
    let mut results = beat_all(&tenant, items).await.unwrap();
    let again = failure(results.pop().unwrap());
    assert_eq!(again, Failure::invalid(&["heartbeats[2].node_id"]));
    assert_eq!(failure(results.pop().unwrap()), Failure::no_node());
    assert_eq!(results.pop().unwrap().unwrap().health_status, 2);
    let moves = [">HEALTHY register", "HEALTHY>DEGRADED heartbeat"];
    assert_eq!(journal(&app, &node).await, moves);
}

/// The row has the latest value of each field.
#[tokio::test]
async fn queued_heartbeats_of_one_node_are_one_write() {
    let (app, tenant) = App::with_tenant().await;
    register(&tenant, "a").await;
    let calls = (0..500).map(|number| {
        let mut client = client(&tenant);
        let heartbeat = NodeHeartbeat {
            health_status: number % 2 + 1,
            metadata: document(json!({ "load": number })),
            ..plain("a")
        };
        let request = HeartbeatRequest {
            namespace: tenant.namespace.clone(),
            heartbeat: Some(heartbeat),
        };
        async move { client.heartbeat(request).await }
    });
    let answers = join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    let moves = "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'heartbeat'";
    assert!(
        app.schema.count(moves).await < 250,
        "each had a write of its own"
    );
}

#[tokio::test]
async fn a_batch_has_1_to_1000_items() {
    let (_app, tenant) = App::with_tenant().await;
    register(&tenant, "a").await;
    for count in [0, 1001] {
        let failed = failure(beat_all(&tenant, vec![plain("a"); count]).await);
        assert_eq!(failed, Failure::invalid(&["heartbeats"]));
    }
}
