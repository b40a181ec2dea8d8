use bridgebook::proto::v1::{DiscoverNodesRequest, NodeHealth, NodeHeartbeat, RegisterNodeRequest};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use prost_types::Duration;
use serde_json::json;
use tonic::Status;

use super::{beat, client, new_node, plain, register, register_as, silence};
use crate::support::{App, Failure, Tenant, document, failure};

/// Returns the names of the nodes that are found.
async fn discover(tenant: &Tenant, node_type: &str, page_size: i32) -> Result<Vec<String>, Status> {
    let request = DiscoverNodesRequest {
        namespace: tenant.namespace.clone(),
        node_type: node_type.into(),
        page_size,
        ..DiscoverNodesRequest::default()
    };
    Ok(page(tenant, request).await?.0)
}

/// Returns the names of the nodes on a page, and the token of the next page.
async fn page(
    tenant: &Tenant,
    request: DiscoverNodesRequest,
) -> Result<(Vec<String>, String), Status> {
    let answer = client(tenant).discover_nodes(request).await?.into_inner();
    let nodes = answer.nodes.into_iter().map(|node| node.node_id);
    Ok((nodes.collect(), answer.next_page_token))
}

/// Returns the names of the nodes on all pages, from `request` on.
async fn pages(tenant: &Tenant, mut request: DiscoverNodesRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let (names, next) = page(tenant, request.clone()).await.unwrap();
        pages.push(names);
        if next.is_empty() {
            return pages;
        }
        request.page_token = next;
    }
}

/// Returns a request for the nodes of the type that `new_node` has.
fn reducers(tenant: &Tenant, page_size: i32) -> DiscoverNodesRequest {
    DiscoverNodesRequest {
        namespace: tenant.namespace.clone(),
        node_type: "reducer".into(),
        page_size,
        ..DiscoverNodesRequest::default()
    }
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
async fn pages_go_on_where_the_last_one_ended() {
    let (app, tenant) = App::with_tenant().await;
    for node_id in ["a", "b", "c", "d", "e"] {
        register(&tenant, node_id).await;
    }
    // Nodes with the same heartbeat are ordered by their names.
    silence(&app, &["b", "c", "d"], 10).await;
    silence(&app, &["e"], 20).await;
    let sql = "UPDATE node_registrations SET last_heartbeat =
                   date_trunc('second', last_heartbeat) WHERE node_id IN ('b', 'c', 'd')";
    app.schema.connect().await.batch_execute(sql).await.unwrap();
    assert_eq!(
        pages(&tenant, reducers(&tenant, 2)).await,
        [vec!["a", "d"], vec!["c", "b"], vec!["e"]]
    );
    assert_eq!(pages(&tenant, reducers(&tenant, 5)).await.len(), 1);

    // A token goes on in its own query only.
    let (_, token) = page(&tenant, reducers(&tenant, 2)).await.unwrap();
    let other = app.tenant();
    for (by, changed) in [
        (&other, reducers(&other, 2)),
        (
            &tenant,
            DiscoverNodesRequest {
                owner: tenant.namespace.clone(),
                ..reducers(&tenant, 2)
            },
        ),
        (
            &tenant,
            DiscoverNodesRequest {
                capabilities: document(json!({"a": 1})),
                ..reducers(&tenant, 2)
            },
        ),
    ] {
        let request = DiscoverNodesRequest {
            page_token: token.clone(),
            ..changed
        };
        assert_eq!(
            failure(page(by, request).await),
            Failure::invalid(&["page_token"])
        );
    }
}

#[tokio::test]
async fn nodes_of_other_owners_do_not_crowd_out_ones_own() {
    let (app, tenant) = App::with_tenant().await;
    let stranger = app.tenant();
    for number in 0..5 {
        register(&tenant, &format!("own-{number}")).await;
    }
    for number in 0..20 {
        register(&stranger, &format!("strange-{number}")).await;
    }
    let first = discover(&tenant, "reducer", 10).await.unwrap();
    assert!(first.iter().all(|name| name.starts_with("strange")));
    let own = DiscoverNodesRequest {
        owner: tenant.namespace.clone(),
        ..reducers(&tenant, 3)
    };
    assert_eq!(
        pages(&tenant, own.clone()).await,
        [vec!["own-4", "own-3", "own-2"], vec!["own-1", "own-0"]]
    );
    // Owner and tenant may differ.
    let theirs = DiscoverNodesRequest {
        namespace: stranger.namespace.clone(),
        ..own
    };
    assert_eq!(pages(&stranger, theirs).await.concat().len(), 5);
}

#[tokio::test]
async fn nodes_are_selected_by_what_they_can_do() {
    let (_app, tenant) = App::with_tenant().await;
    for (node_id, capabilities) in [
        ("a", json!({"formats": ["pdf", "png"]})),
        ("b", json!({"formats": ["png"], "gpu": true})),
        ("c", json!({})),
    ] {
        let request = RegisterNodeRequest {
            capabilities: document(capabilities),
            ..new_node(&tenant, node_id)
        };
        register_as(&tenant, request).await;
    }
    for (wanted, expected) in [
        (json!({"formats": ["png"]}), vec!["b", "a"]),
        (json!({"formats": ["png"], "gpu": true}), vec!["b"]),
        (json!({"gpu": false}), vec![]),
        (json!({}), vec!["c", "b", "a"]),
    ] {
        let request = DiscoverNodesRequest {
            capabilities: document(wanted.clone()),
            ..reducers(&tenant, 1)
        };
        assert_eq!(pages(&tenant, request).await.concat(), expected, "{wanted}");
    }
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
async fn a_truncated_page_has_a_next_one() {
    let (_app, tenant) = App::with_tenant().await;
    let large = json!({ "a": "x".repeat(16_000) });
    let nodes = (0..60).map(|number| RegisterNodeRequest {
        capabilities: document(large.clone()),
        endpoints: document(large.clone()),
        metadata: document(large.clone()),
        ..new_node(&tenant, &format!("node-{number}"))
    });
    join_all(nodes.map(|request| register_as(&tenant, request))).await;
    for (page_size, first, second) in [(10, 10, 10), (0, 43, 17)] {
        let pages = pages(&tenant, reducers(&tenant, page_size)).await;
        assert_eq!((pages[0].len(), pages[1].len()), (first, second));
        let distinct: std::collections::HashSet<String> = pages.concat().into_iter().collect();
        assert_eq!((pages.concat().len(), distinct.len()), (60, 60));
    }
}

#[tokio::test]
async fn a_complete_response_has_no_next_page() {
    let (_app, tenant) = App::with_tenant().await;
    register(&tenant, "a").await;
    let (names, next) = page(&tenant, reducers(&tenant, 1)).await.unwrap();
    assert_eq!((names.len(), next.as_str()), (1, ""));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    for (field, node_type, page_size) in [
        ("node_type", "", 1),
        ("node_type", "a\0", 1),
        ("page_size", "reducer", -1),
        ("page_size", "reducer", i32::MIN),
    ] {
        let failed = failure(discover(&tenant, node_type, page_size).await);
        assert_eq!(failed, Failure::invalid(&[field]));
    }
    for (field, request) in [
        (
            "page_token",
            DiscoverNodesRequest {
                page_token: "AAAA".into(),
                ..reducers(&tenant, 1)
            },
        ),
        (
            "owner",
            DiscoverNodesRequest {
                owner: "a*".into(),
                ..reducers(&tenant, 1)
            },
        ),
        (
            "capabilities",
            DiscoverNodesRequest {
                capabilities: document(json!({"a": "\0"})),
                ..reducers(&tenant, 1)
            },
        ),
        (
            "capabilities",
            DiscoverNodesRequest {
                capabilities: document(json!({"a": vec![1; 17]})),
                ..reducers(&tenant, 1)
            },
        ),
    ] {
        let failed = failure(page(&tenant, request).await);
        assert_eq!(failed, Failure::invalid(&[field]));
    }
}
