use bridgebook::proto::v1::{HeartbeatRequest, NodeHealth, NodeHeartbeat, RegisterNodeRequest};
use futures_util::future::join_all;
use prost_types::Duration;
use serde_json::json;

use super::{
    Pending, beat, client, execute, get, journal, new_node, plain, register, register_as, silence,
};
use crate::support::{App, Failure, document, failure, value};

fn with_health(node_id: &str, health: NodeHealth) -> NodeHeartbeat {
    NodeHeartbeat {
        health_status: health.into(),
        ..plain(node_id)
    }
}

#[tokio::test]
async fn updates_the_node_and_returns_when_the_next_heartbeat_is_due() {
    let (app, tenant) = App::with_tenant().await;
    let request = RegisterNodeRequest {
        metadata: document(json!({"rack": 7})),
        heartbeat_ttl: Some(Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..new_node(&tenant, "reducer-1")
    };
    let before = register_as(&tenant, request).await;
    silence(&app, &["reducer-1"], 1000).await;
    let answer = beat(&tenant, plain("reducer-1")).await.unwrap();
    assert_eq!(answer.health_status(), NodeHealth::Healthy);
    let third = Duration {
        seconds: 0,
        nanos: 333_000_000,
    };
    assert_eq!(answer.next_heartbeat_in, Some(third));
    let after = get(&tenant, "reducer-1").await.unwrap();
    assert_eq!(after.last_heartbeat, answer.last_heartbeat);
    assert_eq!(after.updated_at, after.last_heartbeat);
    assert_eq!(after.registered_at, before.registered_at);
    assert_eq!(value(after.metadata), json!({"rack": 7}));
    assert_eq!(journal(&app, &before).await, [">HEALTHY register"]);
}

#[tokio::test]
async fn a_change_of_health_is_journaled_once() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    for health in [
        NodeHealth::Degraded,
        NodeHealth::Degraded,
        NodeHealth::Unhealthy,
        NodeHealth::Unspecified,
        NodeHealth::Healthy,
    ] {
        let answer = beat(&tenant, with_health("reducer-1", health)).await;
        let expected = match health {
            NodeHealth::Unspecified => NodeHealth::Unhealthy,
            health => health,
        };
        assert_eq!(answer.unwrap().health_status(), expected);
    }
    assert_eq!(
        journal(&app, &node).await,
        [
            ">HEALTHY register",
            "HEALTHY>DEGRADED heartbeat",
            "DEGRADED>UNHEALTHY heartbeat",
            "UNHEALTHY>HEALTHY heartbeat",
        ]
    );
}

#[tokio::test]
async fn given_metadata_replaces_the_stored_one() {
    let (_app, tenant) = App::with_tenant().await;
    register(&tenant, "reducer-1").await;
    for (given, expected) in [
        (Some(json!({"load": 1, "x": 2})), json!({"load": 1, "x": 2})),
        (None, json!({"load": 1, "x": 2})),
        (Some(json!({"load": 3})), json!({"load": 3})),
        (Some(json!({})), json!({})),
    ] {
        let heartbeat = NodeHeartbeat {
            metadata: given.and_then(document),
            ..plain("reducer-1")
        };
        beat(&tenant, heartbeat).await.unwrap();
        let node = get(&tenant, "reducer-1").await.unwrap();
        assert_eq!(value(node.metadata), expected);
    }
}

#[tokio::test]
async fn unknown_and_foreign_nodes_are_not_found() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let failed = failure(beat(&tenant, plain("reducer-2")).await);
    assert_eq!(failed, Failure::no_node());
    let stranger = app.tenant();
    let theirs = with_health("reducer-1", NodeHealth::Unhealthy);
    let failed = failure(beat(&stranger, theirs).await);
    assert_eq!(failed, Failure::no_node());
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), node);
}

#[tokio::test]
async fn health_and_journal_agree_after_concurrent_heartbeats() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let calls = (0..200).map(|number| {
        let health = match number % 5 {
            0 => NodeHealth::Healthy,
            1 => NodeHealth::Degraded,
            _ => NodeHealth::Unspecified,
        };
        beat(&tenant, with_health("reducer-1", health))
    });
    for answer in join_all(calls).await {
        answer.unwrap();
    }
    let moves = journal(&app, &node).await;
    assert!(moves.len() > 1, "{moves:?}");
    let broken = "SELECT count(*) FROM (
        SELECT from_state, lag(to_state) OVER (ORDER BY seq) AS before FROM fsm_transitions) moves
         WHERE from_state IS DISTINCT FROM before";
    assert_eq!(app.schema.count(broken).await, 0, "{moves:?}");
    let agreed = "SELECT count(*) FROM node_registrations WHERE health_status = (
        SELECT to_state FROM fsm_transitions ORDER BY seq DESC LIMIT 1)";
    assert_eq!(app.schema.count(agreed).await, 1);
}

#[tokio::test]
async fn concurrent_heartbeats_and_registrations_of_one_node_succeed() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let beats = (0..100).map(|_| beat(&tenant, with_health("reducer-1", NodeHealth::Degraded)));
    let registrations = (0..100).map(|_| {
        let request = new_node(&tenant, "reducer-1");
        super::try_register(&tenant, request)
    });
    let (beats, registrations) = tokio::join!(join_all(beats), join_all(registrations));
    assert!(beats.iter().all(Result::is_ok), "{beats:?}");
    assert!(registrations.iter().all(Result::is_ok), "{registrations:?}");
    let broken = "SELECT count(*) FROM (
        SELECT from_state, lag(to_state) OVER (ORDER BY seq) AS before FROM fsm_transitions) moves
         WHERE from_state IS DISTINCT FROM before";
    let moves = journal(&app, &node).await;
    assert_eq!(app.schema.count(broken).await, 0, "{moves:?}");
}

#[tokio::test]
async fn a_conflict_with_another_replica_is_retried() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let change = "UPDATE node_registrations SET health_status = 'DEGRADED'";
    let pending = Pending::begin(&app, change).await;
    let call = beat(&tenant, with_health("reducer-1", NodeHealth::Unhealthy));
    let (answer, ()) = tokio::join!(call, pending.commit_when_waited_for(&app));
    assert_eq!(answer.unwrap().health_status(), NodeHealth::Unhealthy);
    assert_eq!(
        journal(&app, &node).await,
        [">HEALTHY register", "DEGRADED>UNHEALTHY heartbeat"]
    );
}

#[tokio::test]
async fn a_node_that_another_replica_removes_is_not_found() {
    let (app, tenant) = App::with_tenant().await;
    register(&tenant, "reducer-1").await;
    let pending = Pending::begin(&app, "DELETE FROM node_registrations").await;
    let call = beat(&tenant, plain("reducer-1"));
    let (answer, ()) = tokio::join!(call, pending.commit_when_waited_for(&app));
    assert_eq!(failure(answer), Failure::no_node());
}

#[tokio::test]
async fn a_heartbeat_restores_the_health_from_before_the_sweep() {
    let (app, tenant) = App::with_tenant().await;
    for (node_id, before, given, expected) in [
        ("a", "HEALTHY", NodeHealth::Unspecified, NodeHealth::Healthy),
        (
            "b",
            "DEGRADED",
            NodeHealth::Unspecified,
            NodeHealth::Degraded,
        ),
        ("c", "HEALTHY", NodeHealth::Degraded, NodeHealth::Degraded),
        ("d", "HEALTHY", NodeHealth::Unhealthy, NodeHealth::Unhealthy),
    ] {
        register(&tenant, node_id).await;
        let mark = format!(
            "UPDATE node_registrations
                SET health_status = 'UNHEALTHY', health_before_silence = '{before}'
              WHERE node_id = '{node_id}'"
        );
        execute(&app, &mark).await;
        let answer = beat(&tenant, with_health(node_id, given)).await.unwrap();
        assert_eq!(answer.health_status(), expected);
        // From now on only its own heartbeats make it UNHEALTHY.
        let answer = beat(&tenant, plain(node_id)).await.unwrap();
        assert_eq!(answer.health_status(), expected);
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let bad = [
        (vec!["heartbeat.node_id"], plain("")),
        (vec!["heartbeat.node_id"], plain("a\0")),
        (
            vec!["heartbeat.health_status"],
            NodeHeartbeat {
                health_status: 9,
                ..plain("a")
            },
        ),
        (
            vec!["heartbeat.node_id", "heartbeat.metadata"],
            NodeHeartbeat {
                metadata: document(json!({"\0": 1})),
                ..plain("a\nb")
            },
        ),
    ];
    for (fields, heartbeat) in bad {
        let failed = failure(beat(&tenant, heartbeat).await);
        assert_eq!(failed, Failure::invalid(&fields));
    }
    let nothing = HeartbeatRequest {
        namespace: tenant.namespace.clone(),
        heartbeat: None,
    };
    let failed = failure(client(&tenant).heartbeat(nothing).await);
    assert_eq!(failed, Failure::invalid(&["heartbeat"]));
}
