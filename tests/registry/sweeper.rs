use std::time::{Duration, Instant};

use bridgebook::{
    config::Config,
    proto::v1::{
        GetSystemHealthRequest, Node, NodeHealth, RegisterNodeRequest,
        admin_service_client::AdminServiceClient,
    },
};
use futures_util::future::join_all;

use super::{
    Pending, beat, execute, get, journal, new_node, plain, register, register_as, silence,
};
use crate::support::{App, Server, Tenant, eventually};

/// Longer than twice the default TTL of 5 minutes.
const TOO_LONG: u32 = 301;
const FAR_TOO_LONG: u32 = 700;

const A_DAY: prost_types::Duration = prost_types::Duration {
    seconds: 86_400,
    nanos: 0,
};
const MORE_THAN_A_DAY: u32 = 90_000;

const A_GRACE: Duration = Duration::from_secs(10);

/// Counts the nodes that the sweeper marked.
const EXPIRED: &str = "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'expire'";

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
    // A sweep has up to three queries here, so the fourth one belongs to another sweep.
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
    assert_eq!(app.schema.count(EXPIRED).await, 0);
    // One node sends a heartbeat, so the other one alone is stale.
    beat(&tenant, plain("a")).await.unwrap();
    until_marked(&tenant, "b").await;
    assert_eq!(app.schema.count(EXPIRED).await, 1);
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
    // Regardless of how many other nodes of the fleet are stale, and of their TTL.
    let others = ["a", "b", "c", "d"];
    for node_id in others {
        let node = RegisterNodeRequest {
            heartbeat_ttl: Some(A_DAY),
            ..new_node(&tenant, node_id)
        };
        register_as(&tenant, node).await;
    }
    register_all(&tenant, &["alive", "dead"]).await;
    silence(&app, &others, MORE_THAN_A_DAY).await;
    silence(&app, &["dead"], FAR_TOO_LONG).await;
    until_marked(&tenant, "dead").await;
    until_swept(&app).await;
    assert_eq!(app.schema.count(EXPIRED).await, 1);
}

/// Inserts nodes in one statement, so that no sweep sees only some of them. `stale` of them
/// are silent for `ttls` times their TTL.
fn insert_fleet(owner: &str, node_type: &str, nodes: usize, stale: usize, ttls: f64) -> String {
    format!(
        "INSERT INTO node_registrations
             (node_id, owner, node_type, node_version, health_status, heartbeat_ttl_ms, last_heartbeat)
         SELECT '{owner}-{node_type}-' || number, '{owner}', '{node_type}', '1', 'HEALTHY', 300000,
                now() - (number <= {stale})::int * {ttls} * interval '300 s'
           FROM generate_series(1, {nodes}) AS number;"
    )
}

async fn expired_of(app: &App, owner: &str) -> i64 {
    let expired = format!("{EXPIRED} AND transition_data->>'owner' = '{owner}'");
    app.schema.count(&expired).await
}

#[tokio::test]
async fn more_than_half_of_at_least_three_nodes_of_a_fleet_pause_the_sweeper_for_it() {
    let (app, tenant) = sweeping().await;
    let cases = [
        (1, 1, false),
        (2, 2, false),
        (3, 1, false),
        (3, 2, true),
        (3, 3, true),
        (4, 2, false),
        (4, 3, true),
        (2_000, 1_000, false),
        (2_000, 1_001, true),
    ];
    let owners: Vec<_> = cases.map(|_| app.tenant().namespace).into();
    let fleets = owners.iter().zip(cases);
    let insert =
        fleets.map(|(owner, (nodes, stale, _))| insert_fleet(owner, "t", nodes, stale, 1.5));
    execute(&app, &insert.collect::<String>()).await;
    let marked: usize = cases.iter().filter(|it| !it.2).map(|it| it.1).sum();
    eventually("all nodes that may be marked are", || async {
        (app.schema.count(EXPIRED).await == marked as i64).then_some(())
    })
    .await;
    until_swept(&app).await;
    for (owner, (nodes, stale, is_paused)) in owners.iter().zip(cases) {
        let expected = if is_paused { 0 } else { stale };
        let expired = expired_of(&app, owner).await;
        assert_eq!(expired, expected as i64, "{stale} of {nodes}");
    }
    let health = AdminServiceClient::new(tenant.channel.clone())
        .get_system_health(GetSystemHealthRequest::default())
        .await;
    let nodes = health.unwrap().into_inner().nodes.unwrap();
    assert_eq!((nodes.sweeper_paused, nodes.paused_fleets), (true, 4));
}

#[tokio::test]
async fn neither_a_strangers_outage_nor_that_of_another_type_delays_a_node() {
    let (app, tenant) = sweeping().await;
    register_all(&tenant, &["a", "b", "silent"]).await;
    let (mine, stranger) = (&tenant.namespace, app.tenant().namespace);
    let silent = insert_fleet(&stranger, "reducer", 4_000, 4_000, 1.5)
        + &insert_fleet(mine, "orchestrator", 4_000, 4_000, 1.5);
    execute(&app, &silent).await;
    silence(&app, &["silent"], TOO_LONG).await;
    until_marked(&tenant, "silent").await;
    until_swept(&app).await;
    assert_eq!(app.schema.count(EXPIRED).await, 1);
}

#[tokio::test]
async fn owners_take_turns_so_that_a_node_does_not_wait_for_a_strangers_thousands() {
    let (app, tenant) = sweeping().await;
    let (mine, stranger) = (&tenant.namespace, app.tenant().namespace);
    // The stranger's nodes are silent for longer.
    let silent = insert_fleet(&stranger, "reducer", 2_000, 2_000, 2.5)
        + &insert_fleet(mine, "reducer", 1, 1, 1.5);
    execute(&app, &silent).await;
    eventually("all nodes are marked", || async {
        (app.schema.count(EXPIRED).await == 2_001).then_some(())
    })
    .await;
    let earlier = format!(
        "{EXPIRED} AND seq < (SELECT seq FROM fsm_transitions
                               WHERE transition_data->>'owner' = '{mine}')"
    );
    // The journal of a round is in the order of node ids.
    let earlier = app.schema.count(&earlier).await;
    assert!(earlier < 500, "{earlier} nodes were marked earlier");
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
async fn a_locked_node_does_not_keep_others_from_being_marked() {
    let with_grace = |config: &mut Config| {
        often(config);
        config.sweep_grace = A_GRACE;
    };
    let app = App::start_with(with_grace).await;
    let [locking, other] = [app.tenant(), app.tenant()];
    register(&locking, "a").await;
    register(&other, "b").await;
    let lock = "SELECT FROM node_registrations WHERE node_id = 'a' FOR UPDATE";
    silence(&app, &["a"], TOO_LONG).await;
    let pending = Pending::begin(&app, lock).await;
    silence(&app, &["b"], TOO_LONG).await;
    until_marked(&other, "b").await;
    // The session that holds the lock stays. Each sweep meets it, also before a later node.
    register(&other, "c").await;
    silence(&app, &["c"], TOO_LONG).await;
    let silent = Instant::now();
    until_marked(&other, "c").await;
    // A sweep waits for a lock for two seconds. After an outage it would wait for the grace.
    assert!(silent.elapsed() < A_GRACE);
    pending.commit().await;
    until_marked(&locking, "a").await;
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
    assert_eq!(app.schema.count(EXPIRED).await, 600);
    drop(replicas);
}

#[tokio::test]
async fn a_stale_node_that_stays_locked_is_logged_and_the_others_are_marked() {
    let (app, tenant) = App::with_tenant().await;
    register_all(&tenant, &["locked", "other"]).await;
    silence(&app, &["locked", "other"], FAR_TOO_LONG).await;
    let lock = "SELECT FROM node_registrations WHERE node_id = 'locked' FOR UPDATE";
    let session = Pending::begin(&app, lock).await;
    let url = app.schema.url();
    let sweeps = ["--sweep-interval=1", "--sweep-grace=1"];
    let server = Server::spawn(&[&["--database-url", &url][..], &sweeps].concat());
    eventually("the locked node is logged", || async {
        let log = server.log();
        let is_logged = log.lines().any(|line| {
            line.contains("WARN")
                && line.contains("stale nodes not marked")
                && line.contains("locked")
        });
        is_logged.then_some(())
    })
    .await;
    until_marked(&tenant, "other").await;
    session.commit().await;
    until_marked(&tenant, "locked").await;
}
