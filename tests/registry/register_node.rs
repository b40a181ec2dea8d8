use bridgebook::proto::v1::{NodeHealth, RegisterNodeRequest};
use futures_util::future::join_all;
use prost_types::Duration;
use serde_json::json;
use tonic::Code;

use super::{
    Pending, beat, get, journal, new_node, plain, register, register_as, silence, try_register,
};
use crate::support::{App, Failure, document, failure, value};

fn seconds(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

#[tokio::test]
async fn stores_the_node() {
    let (app, tenant) = App::with_tenant().await;
    let request = RegisterNodeRequest {
        capabilities: document(json!({"formats": ["pdf"]})),
        endpoints: document(json!({"grpc": "10.0.0.7:7000"})),
        metadata: document(json!({"rack": 7})),
        health_status: NodeHealth::Degraded.into(),
        heartbeat_ttl: seconds(90, 1_999_999),
        ..new_node(&tenant, "reducer-1")
    };
    let answer = try_register(&tenant, request).await.unwrap();
    assert!(answer.created);
    assert_eq!(answer.next_heartbeat_in, seconds(30, 0));
    let node = answer.node.unwrap();
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), node);
    assert_eq!(node.owner, tenant.namespace);
    assert_eq!(
        (node.node_type.as_str(), node.node_version.as_str()),
        ("reducer", "1.0.0")
    );
    assert_eq!(node.health_status(), NodeHealth::Degraded);
    assert_eq!(node.heartbeat_ttl, seconds(90, 1_000_000));
    assert_eq!(node.last_heartbeat, node.registered_at);
    assert_eq!(node.created_at, node.registered_at);
    assert_eq!(node.entity_id, "8fd47191-43d2-5122-aaac-792fb09307c7");
    assert_eq!(journal(&app, &node).await, [">DEGRADED register"]);
    assert_eq!(value(node.capabilities), json!({"formats": ["pdf"]}));
    assert_eq!(value(node.endpoints), json!({"grpc": "10.0.0.7:7000"}));
    assert_eq!(value(node.metadata), json!({"rack": 7}));
}

#[tokio::test]
async fn omitted_fields_have_their_defaults() {
    let (_app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    assert_eq!(node.health_status(), NodeHealth::Healthy);
    assert_eq!(node.heartbeat_ttl, seconds(300, 0));
    for document in [node.capabilities, node.endpoints, node.metadata] {
        assert_eq!(value(document), json!({}));
    }
}

#[tokio::test]
async fn a_retry_stores_the_same_and_journals_nothing() {
    let (app, tenant) = App::with_tenant().await;
    let first = register(&tenant, "reducer-1").await;
    let again = try_register(&tenant, new_node(&tenant, "reducer-1")).await;
    let again = again.unwrap();
    assert!(!again.created);
    let again = again.node.unwrap();
    assert_eq!(again.created_at, first.created_at);
    assert_ne!(again.registered_at, first.registered_at);
    assert_eq!(again.last_heartbeat, again.registered_at);
    assert_eq!(journal(&app, &first).await, [">HEALTHY register"]);
}

#[tokio::test]
async fn a_new_registration_replaces_the_old_one() {
    let (app, tenant) = App::with_tenant().await;
    let request = RegisterNodeRequest {
        metadata: document(json!({"old": true})),
        heartbeat_ttl: seconds(7, 0),
        ..new_node(&tenant, "reducer-1")
    };
    let old = register_as(&tenant, request).await;
    let request = RegisterNodeRequest {
        node_type: "orchestrator".into(),
        node_version: "2.0.0+build/7".into(),
        health_status: NodeHealth::Degraded.into(),
        capabilities: document(json!({"new": true})),
        ..new_node(&tenant, "reducer-1")
    };
    let answer = try_register(&tenant, request).await.unwrap();
    let new = answer.node.unwrap();
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), new);
    assert_eq!(new.node_type, "orchestrator");
    assert_eq!(new.node_version, "2.0.0+build/7");
    assert_eq!(new.heartbeat_ttl, seconds(300, 0));
    assert_eq!(new.health_status(), NodeHealth::Degraded);
    assert_eq!(value(new.metadata), json!({}));
    assert_eq!(value(new.capabilities), json!({"new": true}));
    assert_eq!(
        journal(&app, &old).await,
        [">HEALTHY register", "HEALTHY>DEGRADED register"]
    );
}

#[tokio::test]
async fn a_node_stays_with_the_namespace_that_registered_it_first() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let stranger = app.tenant();
    let failed = failure(try_register(&stranger, new_node(&stranger, "reducer-1")).await);
    assert_eq!(failed, Failure::new(Code::AlreadyExists, "NODE_OWNED"));
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), node);
}

#[tokio::test]
async fn one_of_two_namespaces_racing_for_a_name_gets_it() {
    let (app, first) = App::with_tenant().await;
    let second = app.tenant();
    let calls = (0..40).map(|number| {
        let tenant = if number % 2 == 0 { &first } else { &second };
        try_register(tenant, new_node(tenant, "reducer-1"))
    });
    let answers = join_all(calls).await;
    let owner = get(&first, "reducer-1").await.unwrap().owner;
    let mut created = 0;
    for (number, answer) in answers.into_iter().enumerate() {
        let tenant = if number % 2 == 0 { &first } else { &second };
        if tenant.namespace == owner {
            created += usize::from(answer.unwrap().created);
        } else {
            let owned = Failure::new(Code::AlreadyExists, "NODE_OWNED");
            assert_eq!(failure(answer), owned);
        }
    }
    assert_eq!(created, 1);
    let rows = "SELECT count(*) FROM fsm_transitions";
    assert_eq!(app.schema.count(rows).await, 1);
}

#[tokio::test]
async fn many_nodes_register_at_once() {
    let (app, tenant) = App::with_tenant().await;
    let calls = (0..200).map(|number| {
        let tenant = &tenant;
        async move { register(tenant, &format!("node-{number}")).await }
    });
    let nodes = join_all(calls).await;
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(node.node_id, format!("node-{number}"));
    }
    let rows = "SELECT count(*) FROM fsm_transitions WHERE from_state IS NULL";
    assert_eq!(app.schema.count(rows).await, 200);
}

#[tokio::test]
async fn a_write_conflict_with_another_replica_is_retried() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let change = "UPDATE node_registrations SET health_status = 'DEGRADED'";
    let pending = Pending::begin(&app, change).await;
    let request = RegisterNodeRequest {
        health_status: NodeHealth::Unhealthy.into(),
        ..new_node(&tenant, "reducer-1")
    };
    let call = try_register(&tenant, request);
    let (answer, ()) = tokio::join!(call, pending.commit_when_waited_for(&app));
    assert!(!answer.unwrap().created);
    assert_eq!(
        journal(&app, &node).await,
        [">HEALTHY register", "DEGRADED>UNHEALTHY register"]
    );
}

#[tokio::test]
async fn a_name_that_another_replica_takes_first_is_owned() {
    let (app, tenant) = App::with_tenant().await;
    let change = "INSERT INTO node_registrations
        (node_id, owner, node_type, node_version, health_status)
        VALUES ('reducer-1', 'somebody', 'reducer', '1', 'HEALTHY')";
    let pending = Pending::begin(&app, change).await;
    let call = try_register(&tenant, new_node(&tenant, "reducer-1"));
    let (answer, ()) = tokio::join!(call, pending.commit_when_waited_for(&app));
    let owned = Failure::new(Code::AlreadyExists, "NODE_OWNED");
    assert_eq!(failure(answer), owned);
    let rows = "SELECT count(*) FROM fsm_transitions";
    assert_eq!(app.schema.count(rows).await, 0);
}

#[tokio::test]
async fn counts_as_a_heartbeat() {
    let (app, tenant) = App::with_tenant().await;
    register(&tenant, "reducer-1").await;
    silence(&app, &["reducer-1"], 1000).await;
    let answer = try_register(&tenant, new_node(&tenant, "reducer-1")).await;
    let registered = answer.unwrap().node.unwrap().last_heartbeat.unwrap();
    let beaten = beat(&tenant, plain("reducer-1")).await.unwrap();
    assert!(beaten.last_heartbeat.unwrap().seconds - registered.seconds < 500);
}

#[tokio::test]
async fn names_that_others_use_are_accepted() {
    let (_app, tenant) = App::with_tenant().await;
    let longest = "\u{1f600}".repeat(255);
    for node_id in [
        "celery@host",
        "app@10.0.0.7",
        "[2001:db8::1]:4646",
        "Worker #1 (blue)?",
        "größer",
        &longest,
    ] {
        let request = RegisterNodeRequest {
            node_type: "my type".into(),
            node_version: "1.0 (dirty)".into(),
            ..new_node(&tenant, node_id)
        };
        let stored = register_as(&tenant, request).await;
        assert_eq!(stored.node_id, node_id);
        assert_eq!(stored.node_type, "my type");
        assert_eq!(get(&tenant, node_id).await.unwrap(), stored);
        beat(&tenant, plain(node_id)).await.unwrap();
    }
    // The error for a name of any length and script fits into the headers of a response.
    let missing = failure(get(&tenant, &"\u{1f601}".repeat(255)).await);
    assert_eq!(missing, Failure::new(Code::NotFound, "NODE_NOT_FOUND"));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let good = new_node(&tenant, "reducer-1");
    let id = |text: &str| RegisterNodeRequest {
        node_id: text.into(),
        ..good.clone()
    };
    let node_type = |text: &str| RegisterNodeRequest {
        node_type: text.into(),
        ..good.clone()
    };
    let version = |text: &str| RegisterNodeRequest {
        node_version: text.into(),
        ..good.clone()
    };
    let ttl = |seconds, nanos| RegisterNodeRequest {
        heartbeat_ttl: Some(Duration { seconds, nanos }),
        ..good.clone()
    };
    let health = |number| RegisterNodeRequest {
        health_status: number,
        ..good.clone()
    };
    let nul = document(json!({"a": "\0"}));
    let bad = [
        ("node_id", id("")),
        ("node_id", id("a\0")),
        ("node_id", id(" a")),
        ("node_id", id("a\nb")),
        ("node_id", id("\u{202e}a")),
        ("node_id", id(&"a".repeat(256))),
        ("node_type", node_type("")),
        ("node_type", node_type("a\n")),
        ("node_type", node_type(&"a".repeat(101))),
        ("node_version", version("")),
        ("node_version", version("1 ")),
        ("node_version", version(&"1".repeat(51))),
        ("health_status", health(4)),
        ("health_status", health(-1)),
        ("heartbeat_ttl", ttl(0, 999_999_999)),
        ("heartbeat_ttl", ttl(86_400, 1_000_000)),
        ("heartbeat_ttl", ttl(-1, 0)),
        ("heartbeat_ttl", ttl(i64::MAX, 0)),
        ("heartbeat_ttl", ttl(i64::MIN, i32::MIN)),
        ("heartbeat_ttl", ttl(10, -1)),
        ("heartbeat_ttl", ttl(10, i32::MAX)),
        (
            "capabilities",
            RegisterNodeRequest {
                capabilities: nul.clone(),
                ..good.clone()
            },
        ),
        (
            "endpoints",
            RegisterNodeRequest {
                endpoints: nul.clone(),
                ..good.clone()
            },
        ),
        (
            "metadata",
            RegisterNodeRequest {
                metadata: nul,
                ..good.clone()
            },
        ),
    ];
    for (field, request) in bad {
        let text = format!("{request:?}");
        let failed = failure(try_register(&tenant, request).await);
        assert_eq!(failed, Failure::invalid(&[field]), "{text}");
    }
    let nested = |levels| {
        let inner = (1..levels).fold(json!({}), |inner, _| json!({ "k": [inner] }));
        RegisterNodeRequest {
            metadata: document(json!({ "k": inner })),
            ..good.clone()
        }
    };
    // Each of these levels is an object and a list.
    let failed = failure(try_register(&tenant, nested(17)).await);
    assert_eq!(failed, Failure::invalid(&["metadata"]));
    let deep = RegisterNodeRequest {
        node_id: "deep".into(),
        ..nested(16)
    };
    register_as(&tenant, deep).await;
    let longest = RegisterNodeRequest {
        node_type: "t".repeat(100),
        node_version: "9".repeat(50),
        heartbeat_ttl: seconds(86_400, 999_999),
        ..new_node(&tenant, &"n".repeat(255))
    };
    assert_eq!(
        register_as(&tenant, longest).await.heartbeat_ttl,
        seconds(86_400, 0)
    );
    register_as(&tenant, ttl(1, 0)).await;
}

#[tokio::test]
async fn the_reserved_namespace_cannot_register_nodes() {
    let (_app, tenant) = App::with_tenant().await;
    let request = RegisterNodeRequest {
        namespace: "bridgebook.registry".into(),
        ..new_node(&tenant, "reducer-1")
    };
    let failed = failure(try_register(&tenant, request).await);
    assert_eq!(failed, Failure::invalid(&["namespace"]));
}
