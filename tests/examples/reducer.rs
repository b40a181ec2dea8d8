//! The Node.js bridge node: it counts every completed workflow once, even if it is killed.

use std::{net::SocketAddr, process::Command};

use bridgebook::{
    client::Client,
    proto::v1::{
        BridgeState, GetBridgeStatsRequest, GetBridgeStatsResponse, ListBridgeStatesRequest,
        WorkflowState,
    },
};
use futures_util::future::join_all;

use crate::support::{App, Node, Schema, Server, Tenant, eventually, example, set_up, tenant_on};

fn spawn(address: SocketAddr, tenant: &Tenant, jobs: &str) -> Node {
    set_up("node");
    let mut command = Command::new("node");
    command
        .arg(example("node/reducer.js"))
        .args(["--address", &address.to_string(), "--every", "0.1"])
        .args(["--namespace", &tenant.namespace, "--node-id"])
        .arg(format!("reducer/{}", tenant.namespace))
        .args(["--jobs", jobs]);
    Node::spawn(command)
}

/// Completes `count` workflows of two steps.
async fn complete(tenant: &Tenant, count: usize) {
    let all = (0..count).map(|_| async {
        let workflow = tenant.start_processing().await;
        let steps = [1, 2].map(|order| tenant.new_step(&workflow, order));
        tenant.record_steps(steps.into()).await;
        tenant
            .transition(tenant.to(&workflow, WorkflowState::Completed))
            .await;
    });
    join_all(all).await;
}

async fn stats(tenant: &Tenant) -> GetBridgeStatsResponse {
    let request = GetBridgeStatsRequest {
        namespace: tenant.namespace.clone(),
    };
    let mut bridges = Client::new(tenant.channel.clone()).bridges();
    bridges
        .get_bridge_stats(request)
        .await
        .unwrap()
        .into_inner()
}

async fn bridge(tenant: &Tenant) -> BridgeState {
    let request = ListBridgeStatesRequest {
        namespace: tenant.namespace.clone(),
        ..ListBridgeStatesRequest::default()
    };
    let mut bridges = Client::new(tenant.channel.clone()).bridges();
    let page = bridges.list_bridge_states(request).await.unwrap();
    let [bridge] = page.into_inner().bridge_states.try_into().unwrap();
    bridge
}

#[tokio::test]
async fn a_killed_reducer_counts_each_workflow_once() {
    let (app, tenant) = App::with_tenant().await;
    let late = tenant.start_processing().await;
    complete(&tenant, 300).await;
    let mut reducer = spawn(app.address, &tenant, "1");
    eventually("it counts", || async {
        (stats(&tenant).await.total_workflows > 0).then_some(())
    })
    .await;
    reducer.kill();
    let counted = stats(&tenant).await.total_workflows;
    assert!(counted < 300, "killed too late to be in the middle");

    complete(&tenant, 10).await;
    let mut reducer = spawn(app.address, &tenant, "8");
    reducer.prints("counted 310 with 620 items", 1).await;
    // A workflow on a page that the reducer has already read.
    tenant
        .transition(tenant.to(&late, WorkflowState::Completed))
        .await;
    reducer.prints("counted 311 with 620 items", 1).await;
    assert!(reducer.terminate().await.success(), "{}", reducer.printed());

    // A third reducer sends all of it again.
    let mut reducer = spawn(app.address, &tenant, "32");
    reducer
        .prints("311 workflows, 0 new; counted 311 with 620 items", 1)
        .await;
    assert!(reducer.terminate().await.success(), "{}", reducer.printed());
    assert!(reducer.printed().ends_with("deregistered\n"));
    let bridge = bridge(&tenant).await;
    assert_eq!(
        (
            bridge.total_workflows_processed,
            bridge.total_items_aggregated
        ),
        (311, 620)
    );
    assert_eq!(bridge.current_fsm_state, "IDLE");
}

#[tokio::test]
async fn a_reducer_survives_a_crash_of_the_service() {
    let schema = Schema::create().await;
    let url = schema.url();
    let arguments = ["--database-url", url.as_str(), "--migrate"];
    let mut server = Server::spawn(&arguments);
    let tenant = tenant_on(server.serving().await);
    complete(&tenant, 300).await;
    let mut reducer = spawn(server.address, &tenant, "4");
    let counted = "SELECT coalesce(sum(total_workflows_processed), 0) FROM bridge_states";
    eventually("it counts", || async {
        (schema.count(counted).await > 0).then_some(())
    })
    .await;
    server.kill();
    assert!(schema.count(counted).await < 300, "killed too late");
    let _server = Server::spawn_on(server.address, &arguments);
    reducer.prints("counted 300 with 600 items", 1).await;
    assert!(reducer.terminate().await.success(), "{}", reducer.printed());
}

#[tokio::test]
async fn all_steps_of_a_large_workflow_are_counted() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start_processing().await;
    for orders in [1..=600, 601..=1200] {
        let steps = orders.map(|order| tenant.new_step(&workflow, order));
        tenant.record_steps(steps.collect()).await;
    }
    tenant
        .transition(tenant.to(&workflow, WorkflowState::Completed))
        .await;
    let mut reducer = spawn(app.address, &tenant, "1");
    reducer.prints("counted 1 with 1200 items", 1).await;
}
