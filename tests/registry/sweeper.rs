use std::time::Duration;

use bridgebook::{
    config::Config,
    proto::v1::{Node, NodeHealth, RegisterNodeRequest},
};
use futures_util::future::join_all;

use super::{
    Pending, beat, execute, get, journal, new_node, plain, register, register_as, silence,
};
use crate::support::{App, Tenant, eventually};

/// Longer than twice the default TTL of 5 minutes.
const TOO_LONG: u32 = 301;
const FAR_TOO_LONG: u32 = 700;

const A_DAY: prost_types::Duration = prost_types::Duration {
    seconds: 86_400,
    nanos: 0,
};
const MORE_THAN_A_DAY: u32 = 90_000;

fn often(config: &mut Config) {
    config.sweep_interval = Duration::from_millis(20);
}

/// Starts a service that sweeps often.
async fn sweeping() -> (App, Tenant) {
    let app = App::start_with(often).await;
    let tenant = app.tenant();
    (app, tenant)
}

async fn register_all(tenant: &Tenant, node_ids: &[&str]) -> Vec<Node> {
    join_all(node_ids.iter().map(|id| register(tenant, id))).await
}

async fn until_marked(tenant: &Tenant, node_id: &str) {
    eventually("the sweeper marks the node", || async {
        let node = get(tenant, node_id).await.unwrap();
        (node.health_status() == NodeHealth::Unhealthy).then_some(())
    })
    .await;
}

/// Waits until a whole sweep has run.
async fn until_swept(app: &App) {
    // A sweep has up to three queries, so the fourth one belongs to another sweep.
    for _ in 0..4 {
        let now = "SELECT extract(epoch FROM clock_timestamp()) * 1000000";
        let now = app.schema.count(now).await;
        let since = format!(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name = '{}' AND state = 'idle'
                AND query LIKE '%1 millisecond%' AND query NOT LIKE '%pg_stat_activity%'
                AND extract(epoch FROM query_start) * 1000000 > {now}",
            app.schema.name()
        );
        eventually("the sweeper looks", || async {
            (app.schema.count(&since).await > 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_stale_node_is_marked_and_its_next_heartbeat_restores_it() {
    let (app, tenant) = sweeping().await;
    let degraded = RegisterNodeRequest {
        health_status: NodeHealth::Degraded.into(),
        ..new_node(&tenant, "a")
    };
    let node = register_as(&tenant, degraded).await;
    let others = register_all(&tenant, &["b", "c"]).await;
    silence(&app, &["a"], TOO_LONG).await;
    until_marked(&tenant, "a").await;
    let answer = beat(&tenant, plain("a")).await.unwrap();
    assert_eq!(answer.health_status(), NodeHealth::Degraded);
    assert_eq!(
        journal(&app, &node).await,
        [
            ">DEGRADED register",
            "DEGRADED>UNHEALTHY expire",
            "UNHEALTHY>DEGRADED heartbeat"
        ]
    );
    for other in others {
        assert_eq!(journal(&app, &other).await, [">HEALTHY register"]);
    }
}

#[tokio::test]
async fn stale_nodes_of_a_small_fleet_are_marked() {
    let (app, tenant) = sweeping().await;
    for (node_id, fleet) in [("a", 1), ("b", 2)] {
        register(&tenant, node_id).await;
        beat(&tenant, plain("a")).await.unwrap();
        let ids = ["a", "b"];
        silence(&app, &ids[..fleet], TOO_LONG).await;
        for id in &ids[..fleet] {
            until_marked(&tenant, id).await;
        }
    }
}

#[tokio::test]
async fn the_sweeper_pauses_while_most_of_the_fleet_is_stale() {
    let (app, tenant) = sweeping().await;
    register_all(&tenant, &["a", "b", "c"]).await;
    silence(&app, &["a", "b"], TOO_LONG).await;
    until_swept(&app).await;
    let moves = "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'expire'";
    assert_eq!(app.schema.count(moves).await, 0);
    // One node sends a heartbeat, so the other one alone is stale.
    beat(&tenant, plain("a")).await.unwrap();
    until_marked(&tenant, "b").await;
    assert_eq!(app.schema.count(moves).await, 1);
}

#[tokio::test]
async fn nodes_that_become_stale_one_by_one_also_pause_the_sweeper() {
    let (app, tenant) = sweeping().await;
    register_all(&tenant, &["a", "b", "c", "d"]).await;
    for node_id in ["a", "b"] {
        silence(&app, &[node_id], TOO_LONG).await;
        until_marked(&tenant, node_id).await;
    }
    // The third node within one TTL: three of four, two of which are already marked.
    silence(&app, &["c"], TOO_LONG).await;
    until_swept(&app).await;
    let node = get(&tenant, "c").await.unwrap();
    assert_eq!(node.health_status(), NodeHealth::Healthy);
    // Nodes that have been stale for long do not count.
    silence(&app, &["a", "b"], FAR_TOO_LONG).await;
    until_marked(&tenant, "c").await;
}

#[tokio::test]
async fn a_paused_sweeper_marks_nodes_past_twice_their_ttl() {
    let (app, tenant) = sweeping().await;
    let stranger = app.tenant();
    // Regardless of how many other nodes are stale, and of their TTL.
    let strangers = ["a", "b", "c", "d"];
    for node_id in strangers {
        let node = RegisterNodeRequest {
            heartbeat_ttl: Some(A_DAY),
            ..new_node(&stranger, node_id)
        };
        register_as(&stranger, node).await;
    }
    register_all(&tenant, &["mine", "dead"]).await;
    silence(&app, &strangers, MORE_THAN_A_DAY).await;
    silence(&app, &["dead"], FAR_TOO_LONG).await;
    until_marked(&tenant, "dead").await;
    until_swept(&app).await;
    let moves = "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'expire'";
    assert_eq!(app.schema.count(moves).await, 1);
}

#[tokio::test]
async fn a_heartbeat_during_the_sweep_keeps_the_node_healthy() {
    let (app, tenant) = sweeping().await;
    let node = register(&tenant, "a").await;
    let lock = "LOCK TABLE fsm_transitions IN EXCLUSIVE MODE";
    let mut pending = Pending::begin(&app, lock).await;
    silence(&app, &["a"], TOO_LONG).await;
    // The sweep has found the node and waits for the journal's lock.
    pending.until_waited_for(&app).await;
    execute(&app, "UPDATE node_registrations SET last_heartbeat = now()").await;
    pending.commit().await;
    until_swept(&app).await;
    let after = get(&tenant, "a").await.unwrap();
    assert_eq!(after.health_status(), NodeHealth::Healthy);
    assert_eq!(journal(&app, &node).await, [">HEALTHY register"]);
}

#[tokio::test]
async fn the_sweeper_continues_after_a_failed_sweep() {
    let (mut app, tenant) = sweeping().await;
    app.expect_errors();
    register(&tenant, "a").await;
    execute(&app, "ALTER TABLE node_registrations RENAME TO away").await;
    until_swept(&app).await;
    execute(&app, "ALTER TABLE away RENAME TO node_registrations").await;
    silence(&app, &["a"], TOO_LONG).await;
    until_marked(&tenant, "a").await;
}

#[tokio::test]
async fn concurrent_sweepers_mark_and_journal_each_node_once() {
    let (app, tenant) = sweeping().await;
    let replicas = join_all((0..3).map(|_| App::start_on(app.schema.clone(), often))).await;
    let ids: Vec<_> = (0..1300).map(|number| format!("node-{number}")).collect();
    join_all(ids.iter().map(|id| register(&tenant, id))).await;
    let silent: Vec<&str> = ids.iter().take(600).map(String::as_str).collect();
    silence(&app, &silent, TOO_LONG).await;
    let marked = "SELECT count(*) FROM node_registrations
        WHERE health_status = 'UNHEALTHY' AND health_before_silence = 'HEALTHY'";
    eventually("all silent ones are marked", || async {
        (app.schema.count(marked).await == 600).then_some(())
    })
    .await;
    until_swept(&app).await;
    let moves = "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'expire'";
    assert_eq!(app.schema.count(moves).await, 600);
    drop(replicas);
}
