//! The previous version and this one on one database, during its migration.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, BatchHeartbeatRequest, NodeHealth, NodeHeartbeat,
    RegisterNodeRequest, WorkflowState, bridge_state_service_client::BridgeStateServiceClient,
    registry_service_client::RegistryServiceClient,
};
use futures_util::future::try_join_all;
use tonic::Status;

use crate::{
    fsm,
    support::{Schema, Server, Tenant, bridgebook, eventually, new_id, tenant_on},
};

/// Returns the binary of the previous version, which .ci/previous builds.
fn previous() -> PathBuf {
    let path = std::env::var_os("BRIDGEBOOK_TEST_PREVIOUS");
    path.expect("BRIDGEBOOK_TEST_PREVIOUS: what .ci/previous prints")
        .into()
}

fn migrate(mut command: Command, url: &str) {
    let output = command
        .args(["migrate", "up", "--database-url", url])
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Sends writes of all kinds until `stop` is set. No call may fail.
async fn write(tenant: &Tenant, stop: &AtomicBool, done: &AtomicUsize) -> Result<(), Status> {
    let (bridge_id, entity_id, node_id) = (new_id(), new_id(), new_id());
    let namespace = &tenant.namespace;
    let mut workflows = tenant.client.clone();
    let mut bridges = BridgeStateServiceClient::new(tenant.channel.clone());
    let mut registry = RegistryServiceClient::new(tenant.channel.clone());
    let node = RegisterNodeRequest {
        namespace: namespace.clone(),
        node_id: node_id.clone(),
        node_type: "upgrade".into(),
        node_version: "1.0.0".into(),
        ..RegisterNodeRequest::default()
    };
    registry.register_node(node).await?;
    while !stop.load(Ordering::Relaxed) {
        let started = workflows.start_workflow(tenant.new_workflow()).await?;
        let workflow = started.into_inner().workflow.unwrap();
        for state in [WorkflowState::Processing, WorkflowState::Completed] {
            let request = tenant.to(&workflow, state);
            workflows.transition_workflow(request).await?;
        }
        fsm::record(tenant, fsm::transition(&entity_id, "turn", "OPEN")).await?;
        let batch = AccumulateBridgeStateRequest {
            namespace: namespace.clone(),
            bridge_id: bridge_id.clone(),
            batch_id: new_id(),
            workflows_processed: 1,
            current_fsm_state: "ACTIVE".into(),
            ..AccumulateBridgeStateRequest::default()
        };
        bridges.accumulate_bridge_state(batch).await?;
        let beats = BatchHeartbeatRequest {
            namespace: namespace.clone(),
            heartbeats: vec![NodeHeartbeat {
                node_id: node_id.clone(),
                health_status: NodeHealth::Healthy.into(),
                ..NodeHeartbeat::default()
            }],
        };
        registry.batch_heartbeat(beats).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn progress(done: &AtomicUsize) {
    let before = done.load(Ordering::Relaxed);
    eventually("calls go on", async || {
        (done.load(Ordering::Relaxed) > before + 20).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a build of the previous version, see .ci/run"]
async fn the_previous_version_and_this_one_run_side_by_side_during_a_migration() {
    let schema = Schema::empty().await;
    let url = schema.url();
    migrate(Command::new(previous()), &url);
    let arguments = ["--database-url", url.as_str()];
    let old = Server::spawn_program(Command::new(previous()), &arguments);
    let tenants = [
        tenant_on(old.serving().await),
        tenant_on(old.serving().await),
    ];
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let writes = try_join_all(tenants.iter().map(|tenant| write(tenant, &stop, &done)));
    let upgrade = async {
        progress(&done).await;
        tokio::task::block_in_place(|| migrate(bridgebook(), &url));
        progress(&done).await;
        let new = Server::spawn(&arguments);
        let tenant = tenant_on(new.serving().await);
        let new_done = AtomicUsize::new(0);
        let new_stop = AtomicBool::new(false);
        let both = async {
            progress(&new_done).await;
            progress(&done).await;
            // An old version that starts now finds a newer schema.
            let again = Server::spawn_program(Command::new(previous()), &arguments);
            tenant_on(again.serving().await).start().await;
            new_stop.store(true, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
            Ok(())
        };
        tokio::try_join!(write(&tenant, &new_stop, &new_done), both)?;
        Ok(new_done.into_inner())
    };
    let (_, new_done) = tokio::try_join!(writes, upgrade).unwrap();
    let rounds = i64::try_from(done.into_inner() + new_done).unwrap();
    for (what, sql) in [
        (
            "workflows",
            "SELECT count(*) FROM workflow_executions WHERE current_state = 'COMPLETED'",
        ),
        (
            "batches",
            "SELECT sum(total_workflows_processed) FROM bridge_states",
        ),
        (
            "moves",
            "SELECT count(*) FROM fsm_transitions WHERE transition_event = 'turn'",
        ),
    ] {
        assert_eq!(schema.count(sql).await, rounds, "{what}");
    }
}
