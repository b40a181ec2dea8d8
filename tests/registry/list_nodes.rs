use bridgebook::proto::v1::{ListNodesRequest, ListNodesResponse, NodeHealth, RegisterNodeRequest};
use futures_util::future::join_all;
use prost_types::Duration;
use serde_json::json;
use tonic::Status;

use super::{client, execute, new_node, register, register_as, silence};
use crate::support::{App, Failure, Tenant, document, failure};

async fn list(tenant: &Tenant, request: ListNodesRequest) -> Result<ListNodesResponse, Status> {
    let request = ListNodesRequest {
        namespace: tenant.namespace.clone(),
        ..request
    };
    let answer = client(tenant).list_nodes(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Returns the names on all pages, and the number of pages.
async fn all(tenant: &Tenant, mut request: ListNodesRequest) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    for pages in 1.. {
        let page = list(tenant, request.clone()).await.unwrap();
        names.extend(page.nodes.into_iter().map(|node| node.node_id));
        if page.next_page_token.is_empty() {
            return (names, pages);
        }
        request.page_token = page.next_page_token;
    }
    unreachable!("it ends")
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let (app, tenant) = App::with_tenant().await;
    let stranger = app.tenant();
    let a = RegisterNodeRequest {
        capabilities: document(json!({"formats": ["pdf", "png"], "gpu": {"count": 2}})),
        ..new_node(&tenant, "a")
    };
    register_as(&tenant, a).await;
    let b = RegisterNodeRequest {
        health_status: NodeHealth::Degraded.into(),
        capabilities: document(json!({"formats": ["pdf"]})),
        ..new_node(&stranger, "b")
    };
    register_as(&stranger, b).await;
    let c = RegisterNodeRequest {
        node_type: "orchestrator".into(),
        health_status: NodeHealth::Unhealthy.into(),
        ..new_node(&tenant, "c")
    };
    register_as(&tenant, c).await;
    silence(&app, &["b"], 1000).await;
    silence(&app, &["c"], 2000).await;
    let any = ListNodesRequest::default;
    let health = |numbers: &[i32]| ListNodesRequest {
        health_statuses: numbers.to_vec(),
        ..any()
    };
    let capable = |value| ListNodesRequest {
        capabilities: document(value),
        ..any()
    };
    let within = |time| ListNodesRequest {
        heartbeat_within: seconds(time),
        ..any()
    };
    let silent = |time| ListNodesRequest {
        heartbeat_older_than: seconds(time),
        ..any()
    };
    let owned = |owner: &str| ListNodesRequest {
        owner: owner.into(),
        ..any()
    };
    let cases = [
        (any(), vec!["a", "b", "c"]),
        (
            ListNodesRequest {
                node_type: "reducer".into(),
                ..any()
            },
            vec!["a", "b"],
        ),
        (health(&[1]), vec!["a"]),
        (health(&[3, 2, 3]), vec!["b", "c"]),
        (capable(json!({"formats": ["pdf"]})), vec!["a", "b"]),
        (capable(json!({"formats": ["png", "pdf"]})), vec!["a"]),
        (capable(json!({"gpu": {"count": 2}})), vec!["a"]),
        (capable(json!({"gpu": 2})), vec![]),
        (capable(json!({})), vec!["a", "b", "c"]),
        (within(500), vec!["a"]),
        (within(1500), vec!["a", "b"]),
        (within(315_576_000_000), vec!["a", "b", "c"]),
        (silent(500), vec!["b", "c"]),
        (silent(1500), vec!["c"]),
        (silent(315_576_000_000), vec![]),
        (owned(&tenant.namespace), vec!["a", "c"]),
        (owned(&stranger.namespace), vec!["b"]),
        (owned("nobody"), vec![]),
        (
            ListNodesRequest {
                heartbeat_older_than: seconds(500),
                ..within(1500)
            },
            vec!["b"],
        ),
    ];
    for (request, expected) in cases {
        let text = format!("{request:?}");
        assert_eq!(all(&tenant, request).await.0, expected, "{text}");
    }
}

#[tokio::test]
async fn pages_cover_everything_once() {
    let (app, tenant) = App::with_tenant().await;
    let nodes = format!(
        "INSERT INTO node_registrations (node_id, owner, node_type, node_version, health_status)
         SELECT 'node-' || to_char(n, 'FM0000'), '{}', 'reducer', '1', 'HEALTHY'
           FROM generate_series(1, 2500) n",
        tenant.namespace
    );
    execute(&app, &nodes).await;
    let expected: Vec<_> = (1..=2500)
        .map(|number| format!("node-{number:04}"))
        .collect();
    for (page_size, pages) in [(0, 25), (999, 3), (1000, 3), (i32::MAX, 3)] {
        let request = ListNodesRequest {
            page_size,
            ..Default::default()
        };
        assert_eq!(all(&tenant, request).await, (expected.clone(), pages));
    }
}

#[tokio::test]
async fn a_page_of_large_rows_ends_early() {
    let (_app, tenant) = App::with_tenant().await;
    let large = json!({ "a": "x".repeat(16_000) });
    let nodes = (0..60).map(|number| RegisterNodeRequest {
        capabilities: document(large.clone()),
        endpoints: document(large.clone()),
        metadata: document(large.clone()),
        ..new_node(&tenant, &format!("node-{number}"))
    });
    join_all(nodes.map(|request| register_as(&tenant, request))).await;
    let (names, pages) = all(&tenant, ListNodesRequest::default()).await;
    assert_eq!((names.len(), pages), (60, 2));
}

#[tokio::test]
async fn a_page_token_is_valid_only_for_its_own_query() {
    let (app, tenant) = App::with_tenant().await;
    for node_id in ["a", "b"] {
        register(&tenant, node_id).await;
    }
    let first = ListNodesRequest {
        page_size: 1,
        ..Default::default()
    };
    let page_token = list(&tenant, first).await.unwrap().next_page_token;
    let next = ListNodesRequest {
        page_token: page_token.clone(),
        ..Default::default()
    };
    let other = ListNodesRequest {
        node_type: "reducer".into(),
        ..next.clone()
    };
    let bad = Failure::invalid(&["page_token"]);
    assert_eq!(failure(list(&tenant, other).await), bad);
    assert_eq!(failure(list(&app.tenant(), next.clone()).await), bad);
    assert_eq!(all(&tenant, next).await, (vec!["b".to_owned()], 1));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let any = ListNodesRequest::default;
    let health = |numbers: &[i32]| ListNodesRequest {
        health_statuses: numbers.to_vec(),
        ..any()
    };
    let within = |seconds, nanos| ListNodesRequest {
        heartbeat_within: Some(Duration { seconds, nanos }),
        ..any()
    };
    let bad = [
        (
            "page_size",
            ListNodesRequest {
                page_size: -1,
                ..any()
            },
        ),
        (
            "page_token",
            ListNodesRequest {
                page_token: "AAAA".into(),
                ..any()
            },
        ),
        (
            "node_type",
            ListNodesRequest {
                node_type: "a\0".into(),
                ..any()
            },
        ),
        ("health_statuses[1]", health(&[1, 4])),
        ("health_statuses[0]", health(&[0, 1])),
        (
            "capabilities",
            ListNodesRequest {
                capabilities: document(json!({"a": "\0"})),
                ..any()
            },
        ),
        (
            "capabilities",
            ListNodesRequest {
                capabilities: document(json!({"a": vec![1; 17]})),
                ..any()
            },
        ),
        ("heartbeat_within", within(0, 0)),
        ("heartbeat_within", within(-1, 0)),
        ("heartbeat_within", within(1, -1)),
        ("heartbeat_within", within(i64::MAX, 0)),
        (
            "heartbeat_older_than",
            ListNodesRequest {
                heartbeat_older_than: seconds(315_576_000_001),
                ..any()
            },
        ),
        (
            "owner",
            ListNodesRequest {
                owner: "a\0".into(),
                ..any()
            },
        ),
    ];
    for (field, request) in bad {
        let text = format!("{request:?}");
        let failed = failure(list(&tenant, request).await);
        assert_eq!(failed, Failure::invalid(&[field]), "{text}");
    }
}
