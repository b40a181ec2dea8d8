//! Heartbeats count apart from the other calls of a tenant.

use std::num::NonZeroU32;

use bridgebook::{
    config::Config,
    proto::v1::{
        BatchHeartbeatRequest, GetNodeRequest, HeartbeatRequest, NodeHeartbeat,
        RegisterNodeRequest, registry_service_client::RegistryServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{App, Failure, Tenant, eventually, failure};

async fn with(change: impl FnOnce(&mut Config)) -> (App, Tenant, RegistryServiceClient<Channel>) {
    let app = App::start_with(change).await;
    let (tenant, registry) = (
        app.tenant(),
        RegistryServiceClient::new(app.channel.clone()),
    );
    (app, tenant, registry)
}

fn exceeded() -> Failure {
    Failure::new(Code::ResourceExhausted, "QUOTA_EXCEEDED")
}

fn node(tenant: &Tenant) -> RegisterNodeRequest {
    RegisterNodeRequest {
        namespace: tenant.namespace.clone(),
        node_id: format!("node of {}", tenant.namespace),
        node_type: "reducer".into(),
        node_version: "1.0.0".into(),
        ..RegisterNodeRequest::default()
    }
}

fn heartbeat(tenant: &Tenant) -> NodeHeartbeat {
    NodeHeartbeat {
        node_id: node(tenant).node_id,
        ..NodeHeartbeat::default()
    }
}

/// Registers the node, and sends one heartbeat of each kind.
async fn stay_alive(
    registry: &mut RegistryServiceClient<Channel>,
    tenant: &Tenant,
) -> Result<(), Status> {
    registry.register_node(node(tenant)).await?;
    let single = HeartbeatRequest {
        namespace: tenant.namespace.clone(),
        heartbeat: Some(heartbeat(tenant)),
    };
    registry.heartbeat(single).await?;
    let batch = BatchHeartbeatRequest {
        namespace: tenant.namespace.clone(),
        heartbeats: vec![heartbeat(tenant)],
    };
    registry.batch_heartbeat(batch).await?;
    Ok(())
}

async fn read(
    registry: &mut RegistryServiceClient<Channel>,
    tenant: &Tenant,
) -> Result<(), Status> {
    let request = GetNodeRequest {
        namespace: tenant.namespace.clone(),
        node_id: node(tenant).node_id,
    };
    registry.get_node(request).await.map(drop)
}

#[tokio::test]
async fn a_node_stays_alive_after_a_large_batch_of_its_tenant() {
    let (_app, tenant, mut registry) = with(|config| {
        // Within a second the heartbeats below have fewer items, and the batch takes 20 s.
        config.limits.quotas.namespace.items_per_second = NonZeroU32::new(50);
    })
    .await;
    let workflow = tenant.start().await;
    eventually("the batch is within the quota", async || {
        let steps = (0..1000).map(|order| tenant.new_step(&workflow, order));
        let request = bridgebook::proto::v1::BatchRecordStepsRequest {
            namespace: tenant.namespace.clone(),
            steps: steps.collect(),
        };
        tenant.client.clone().batch_record_steps(request).await.ok()
    })
    .await;
    for _ in 0..10 {
        stay_alive(&mut registry, &tenant).await.unwrap();
        assert_eq!(failure(read(&mut registry, &tenant).await), exceeded());
    }
}

#[tokio::test]
async fn heartbeats_have_the_calls_of_a_quota_for_themselves() {
    let (_app, tenant, mut registry) = with(|config| {
        config.limits.quotas.namespace.calls_per_second = NonZeroU32::new(3);
    })
    .await;
    stay_alive(&mut registry, &tenant).await.unwrap();
    for _ in 0..3 {
        read(&mut registry, &tenant).await.unwrap();
    }
    let status = eventually("too many heartbeats", async || {
        stay_alive(&mut registry.clone(), &tenant).await.err()
    });
    assert_eq!(failure::<()>(Err(status.await)), exceeded());
}

#[tokio::test]
async fn heartbeats_have_the_items_of_a_quota_for_themselves() {
    let (_app, tenant, mut registry) = with(|config| {
        config.limits.quotas.namespace.items_per_second = NonZeroU32::new(10);
    })
    .await;
    registry.register_node(node(&tenant)).await.unwrap();
    let large = BatchHeartbeatRequest {
        namespace: tenant.namespace.clone(),
        heartbeats: vec![heartbeat(&tenant); 1000],
    };
    registry.batch_heartbeat(large).await.unwrap();
    // Registrations and heartbeats wait for the rate, and other calls do not.
    let register = registry.register_node(node(&tenant)).await;
    let status = register.unwrap_err();
    let metadata = status
        .get_error_details()
        .error_info()
        .unwrap()
        .metadata
        .clone();
    assert_eq!(metadata["limit"], "items_per_second");
    assert_eq!(failure::<()>(Err(status)), exceeded());
    assert_eq!(
        failure(stay_alive(&mut registry, &tenant).await),
        exceeded()
    );
    read(&mut registry, &tenant).await.unwrap();
}
