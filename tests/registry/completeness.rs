//! What every RPC answers to another tenant.

use bridgebook::proto::v1;
use tonic::Status;

use super::{beat, client, get, new_node, plain, register, try_register};
use crate::support::{App, Failure, Tenant, assert_complete, failure};

/// What every method that can name a node of another tenant answers to it.
async fn with_foreign_node(own: &Tenant, node_id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let namespace = own.namespace.clone();
    let mut client = client(own);
    let batch = v1::BatchHeartbeatRequest {
        namespace: namespace.clone(),
        heartbeats: vec![plain(node_id)],
    };
    let batch = client.batch_heartbeat(batch).await;
    let batch = batch.map(|answer| answer.into_inner().results);
    let deregister = v1::DeregisterNodeRequest {
        namespace: namespace.clone(),
        node_id: node_id.into(),
        allow_missing: false,
    };
    let list = v1::ListNodesRequest {
        namespace: namespace.clone(),
        ..Default::default()
    };
    let list = client.list_nodes(list).await;
    let discover = v1::DiscoverNodesRequest {
        namespace,
        node_type: "reducer".into(),
        limit: 0,
    };
    let discover = client.discover_nodes(discover).await;
    let register = try_register(own, new_node(own, node_id)).await;
    vec![
        ("RegisterNode", register.map(drop)),
        ("Heartbeat", beat(own, plain(node_id)).await.map(drop)),
        (
            "BatchHeartbeat",
            batch.map(|results| {
                assert!(matches!(
                    results[0].result,
                    Some(v1::heartbeat_result::Result::Error(_))
                ));
            }),
        ),
        (
            "DeregisterNode",
            client.deregister_node(deregister).await.map(drop),
        ),
        ("GetNode", get(own, node_id).await.map(drop)),
        (
            "ListNodes",
            list.map(|answer| assert_eq!(answer.into_inner().nodes.len(), 1)),
        ),
        (
            "DiscoverNodes",
            discover.map(|answer| assert_eq!(answer.into_inner().nodes.len(), 1)),
        ),
    ]
}

#[tokio::test]
async fn another_tenants_node_can_be_seen_but_not_changed() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let answers = with_foreign_node(&app.tenant(), "reducer-1").await;
    assert_complete("RegistryService", answers.iter().map(|(rpc, _)| *rpc));
    for (rpc, answer) in answers {
        match rpc {
            "RegisterNode" => {
                let owned = Failure::new(tonic::Code::AlreadyExists, "NODE_OWNED");
                assert_eq!(failure(answer), owned);
            }
            "Heartbeat" | "DeregisterNode" => assert_eq!(failure(answer), Failure::no_node()),
            // They answer: the registry is shared, and a batch fails item by item.
            _ => answer.unwrap(),
        }
    }
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), node);
}
