//! The Rust reducer that follows the journal: it counts each transition once, however it ends.

use std::process::Command;

use bridgebook::{
    client::Client,
    proto::v1::{BridgeState, GetBridgeStateRequest, WorkflowState},
};

use crate::support::{App, Node, Tenant, eventually, new_id, rust_example};

fn spawn(app: &App, tenant: &Tenant, bridge_id: &str) -> Node {
    let mut command = Command::new(rust_example("journal_reducer"));
    command.args(["--address", &app.address.to_string()]);
    command.args(["--namespace", &tenant.namespace, "--bridge-id", bridge_id]);
    Node::spawn(command)
}

/// Completes workflows, with three transitions each.
async fn complete(tenant: &Tenant, count: usize) {
    for _ in 0..count {
        let workflow = tenant.start_processing().await;
        let completed = tenant.to(&workflow, WorkflowState::Completed);
        tenant.transition(completed).await;
    }
}

/// Waits until the bridge has counted a number of workflows.
async fn counted(tenant: &Tenant, bridge_id: &str, workflows: i64) -> BridgeState {
    let request = GetBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.to_owned(),
    };
    eventually("the workflows are counted", async || {
        let mut bridges = Client::new(tenant.channel.clone()).bridges();
        let response = bridges.get_bridge_state(request.clone()).await.ok()?;
        let bridge = response.into_inner().bridge_state?;
        (bridge.total_workflows_processed >= workflows).then_some(bridge)
    })
    .await
}

#[tokio::test]
async fn killed_and_competing_reducers_count_each_workflow_once() {
    let (app, tenant) = App::with_tenant().await;
    let bridge_id = new_id();
    complete(&tenant, 20).await;
    let mut first = spawn(&app, &tenant, &bridge_id);
    let bridge = counted(&tenant, &bridge_id, 1).await;
    assert!(!bridge.consumed_through.is_empty());
    first.kill();
    complete(&tenant, 20).await;

    let mut reducers = [0; 3].map(|_| spawn(&app, &tenant, &bridge_id));
    complete(&tenant, 20).await;
    let bridge = counted(&tenant, &bridge_id, 60).await;
    assert_eq!(bridge.total_workflows_processed, 60);
    for reducer in &mut reducers {
        assert!(reducer.terminate().await.success(), "{}", reducer.printed());
        assert!(reducer.printed().ends_with("stopped\n"));
    }
    // Each workflow has as many transitions.
    let bridge = counted(&tenant, &bridge_id, 60).await;
    assert_eq!(bridge.total_workflows_processed, 60);
    assert_eq!(bridge.total_items_aggregated % 60, 0, "{bridge:?}");
}
