use bridgebook::proto::v1::{
    BatchHeartbeatRequest, HeartbeatResponse, NodeHealth, NodeHeartbeat,
    heartbeat_result::Result as Outcome,
};
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};

use super::{client, get, journal, plain, register};
use crate::support::{App, Failure, Tenant, document, failure, value};

/// What became of each item: a failure in the form of a failed call.
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
async fn touches_a_thousand_nodes_and_answers_each_in_its_place() {
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
async fn bad_and_unknown_ones_are_answered_and_the_good_ones_are_done() {
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
async fn several_heartbeats_of_one_node_are_done_in_their_order() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "a").await;
    let health = |health: NodeHealth| NodeHeartbeat {
        health_status: health.into(),
        ..plain("a")
    };
    let items = vec![
        health(NodeHealth::Degraded),
        plain("a"),
        NodeHeartbeat {
            metadata: document(json!({"load": 1})),
            ..plain("a")
        },
        health(NodeHealth::Unhealthy),
        health(NodeHealth::Unhealthy),
        health(NodeHealth::Degraded),
    ];
    let results = beat_all(&tenant, items).await.unwrap().into_iter();
    let health: Vec<_> = results
        .map(|result| result.unwrap().health_status)
        .collect();
    assert_eq!(health, [2, 2, 2, 3, 3, 2]);
    assert_eq!(
        journal(&app, &node).await,
        [
            ">HEALTHY register",
            "HEALTHY>DEGRADED heartbeat",
            "DEGRADED>UNHEALTHY heartbeat",
            "UNHEALTHY>DEGRADED heartbeat",
        ]
    );
    let metadata = get(&tenant, "a").await.unwrap().metadata;
    assert_eq!(value(metadata), json!({"load": 1}));
}

#[tokio::test]
async fn a_batch_has_1_to_1000_items() {
    let (_app, tenant) = App::with_tenant().await;
    register(&tenant, "a").await;
    for count in [0, 1001] {
        let failed = failure(beat_all(&tenant, vec![plain("a"); count]).await);
        assert_eq!(failed, Failure::invalid(&["heartbeats"]));
    }
    let results = beat_all(&tenant, vec![plain("a"); 1000]).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
}
