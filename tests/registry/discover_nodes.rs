use bridgebook::proto::v1::{DiscoverNodesRequest, NodeHealth, NodeHeartbeat, RegisterNodeRequest};
use futures_util::future::join_all;
use prost_types::Duration;
use serde_json::json;
use tonic::Status;

use super::{beat, client, new_node, plain, register, register_as, silence};
use crate::support::{App, Failure, Tenant, document, failure};

/// Returns the names of the nodes that are found.
async fn discover(tenant: &Tenant, node_type: &str, limit: i32) -> Result<Vec<String>, Status> {
    let request = DiscoverNodesRequest {
        namespace: tenant.namespace.clone(),
        node_type: node_type.into(),
        limit,
    };
    let answer = client(tenant).discover_nodes(request).await?;
    let nodes = answer.into_inner().nodes.into_iter();
    Ok(nodes.map(|node| node.node_id).collect())
}

#[tokio::test]
async fn finds_nodes_of_a_type_by_latest_heartbeat() {
    let (app, tenant) = App::with_tenant().await;
    for (node_id, age) in [("a", 20), ("b", 10), ("c", 30)] {
        register(&app.tenant(), node_id).await;
        silence(&app, &[node_id], age).await;
    }
    let other = RegisterNodeRequest {
        node_type: "other".into(),
        ..new_node(&tenant, "d")
    };
    register_as(&tenant, other).await;
    assert_eq!(
        discover(&tenant, "reducer", 0).await.unwrap(),
        ["b", "a", "c"]
    );
    assert_eq!(discover(&tenant, "reducer", 2).await.unwrap(), ["b", "a"]);
    assert_eq!(discover(&tenant, "other", 1).await.unwrap(), ["d"]);
    assert!(discover(&tenant, "nothing", 1).await.unwrap().is_empty());
    beat(&tenant, plain("d")).await.unwrap();
    assert_eq!(discover(&tenant, "other", i32::MAX).await.unwrap(), ["d"]);
}

#[tokio::test]
async fn an_unhealthy_node_is_not_discovered() {
    let (_app, tenant) = App::with_tenant().await;
    register(&tenant, "a").await;
    for (health, expected) in [
        (NodeHealth::Degraded, 0),
        (NodeHealth::Unhealthy, 0),
        (NodeHealth::Healthy, 1),
    ] {
        let heartbeat = NodeHeartbeat {
            health_status: health.into(),
            ..plain("a")
        };
        beat(&tenant, heartbeat).await.unwrap();
        let found = discover(&tenant, "reducer", 10).await.unwrap();
        assert_eq!(found.len(), expected, "{health:?}");
    }
}

#[tokio::test]
async fn a_stale_node_is_not_discovered_even_without_a_sweeper() {
    let (app, tenant) = App::with_tenant().await;
    for (node_id, ttl) in [("short", 100), ("day", 86_400)] {
        let request = RegisterNodeRequest {
            heartbeat_ttl: Some(Duration {
                seconds: ttl,
                nanos: 0,
            }),
            ..new_node(&tenant, node_id)
        };
        register_as(&tenant, request).await;
    }
    register(&tenant, "default").await;
    let all = ["short", "default", "day"];
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    for (more, expected) in [
        (0, vec!["day", "default", "short"]),
        (101, vec!["day", "default"]),
        (200, vec!["day"]),
        (80_000, vec!["day"]),
        (7_000, vec![]),
    ] {
        silence(&app, &all, more).await;
        let found = sorted(discover(&tenant, "reducer", 10).await.unwrap());
        assert_eq!(found, expected, "{more} s more");
    }
    beat(&tenant, plain("short")).await.unwrap();
    assert_eq!(discover(&tenant, "reducer", 10).await.unwrap(), ["short"]);
}

#[tokio::test]
async fn concurrent_callers_each_find_their_type() {
    let (_app, tenant) = App::with_tenant().await;
    for number in 0..9 {
        let request = RegisterNodeRequest {
            node_type: format!("type-{}", number % 3),
            ..new_node(&tenant, &format!("node-{number}"))
        };
        register_as(&tenant, request).await;
    }
    let calls = (0..100).map(|number| {
        let tenant = &tenant;
        async move {
            let node_type = format!("type-{}", number % 4);
            let limit = 1 + number % 3;
            (number, discover(tenant, &node_type, limit).await.unwrap())
        }
    });
    for (number, found) in join_all(calls).await {
        let of_type = number % 4;
        let newest = [of_type + 6, of_type + 3, of_type].map(|number| format!("node-{number}"));
        let expected = if of_type == 3 {
            0
        } else {
            1 + number as usize % 3
        };
        assert_eq!(found, newest[..expected], "{number}");
    }
}

#[tokio::test]
async fn a_truncated_response_says_that_more_nodes_exist() {
    let (_app, tenant) = App::with_tenant().await;
    let large = json!({ "a": "x".repeat(16_000) });
    let nodes = (0..60).map(|number| RegisterNodeRequest {
        capabilities: document(large.clone()),
        endpoints: document(large.clone()),
        metadata: document(large.clone()),
        ..new_node(&tenant, &format!("node-{number}"))
    });
    join_all(nodes.map(|request| register_as(&tenant, request))).await;
    for (limit, expected, has_more) in [(10, 10, true), (0, 43, true)] {
        let request = DiscoverNodesRequest {
            namespace: tenant.namespace.clone(),
            node_type: "reducer".into(),
            limit,
        };
        let answer = client(&tenant).discover_nodes(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!((answer.nodes.len(), answer.has_more), (expected, has_more));
    }
}

#[tokio::test]
async fn a_complete_response_says_so() {
    let (_app, tenant) = App::with_tenant().await;
    register(&tenant, "a").await;
    let request = DiscoverNodesRequest {
        namespace: tenant.namespace.clone(),
        node_type: "reducer".into(),
        limit: 1,
    };
    let answer = client(&tenant).discover_nodes(request).await.unwrap();
    assert!(!answer.into_inner().has_more);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    for (field, node_type, limit) in [
        ("node_type", "", 1),
        ("node_type", "a\0", 1),
        ("limit", "reducer", -1),
        ("limit", "reducer", i32::MIN),
    ] {
        let failed = failure(discover(&tenant, node_type, limit).await);
        assert_eq!(failed, Failure::invalid(&[field]));
    }
}
