//! The port for metrics and health checks over HTTP.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use bridgebook::{
    config::Auth,
    domain::role::Role,
    proto::v1::{
        BatchRecordStepsRequest, GetServerInfoRequest, GetWorkflowRequest, RegisterNodeRequest,
        get_workflow_request::Key, registry_service_client::RegistryServiceClient,
    },
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    App, Failure, Frozen, Server, eventually, failure, get, new_id, own_cluster, temp_dir,
    tenant_on,
};

const FREE_PORT: &str = "127.0.0.1:0";

/// Starts a server with a port for metrics on the schema of an app.
fn with_metrics_port(app: &App) -> Server {
    let url = app.schema.url();
    Server::spawn(&["--database-url", &url, "--metrics-listen", FREE_PORT])
}

async fn readiness(address: SocketAddr, status: u16) {
    eventually(&format!("/readyz is {status}"), || async {
        (get(address, "/readyz").await?.0 == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_batches_and_the_database_are_counted() {
    let app = App::start().await;
    let tenant = app.tenant();
    join_all((0..20).map(|_| tenant.start())).await;
    let unknown = GetWorkflowRequest {
        namespace: tenant.namespace.clone(),
        key: Some(Key::Id(new_id())),
        include_stamps: false,
    };
    let refused = tenant.client.clone().get_workflow(unknown).await;
    assert_eq!(
        failure(refused),
        Failure::new(Code::NotFound, "WORKFLOW_NOT_FOUND")
    );

    let figures = app.figures();
    let start = [
        ("grpc_type", "unary"),
        ("grpc_service", "bridgebook.v1.WorkflowService"),
        ("grpc_method", "StartWorkflow"),
    ];
    assert_eq!(figures.sum("grpc_server_started_total", &start), 20.0);
    let ok = [&start[..], &[("grpc_code", "OK")]].concat();
    assert_eq!(figures.sum("grpc_server_handled_total", &ok), 20.0);
    assert_eq!(
        figures.sum("grpc_server_handling_seconds_count", &start),
        20.0
    );
    let not_found = [("grpc_method", "GetWorkflow"), ("grpc_code", "NotFound")];
    assert_eq!(figures.sum("grpc_server_handled_total", &not_found), 1.0);

    let operation = [("operation", "StartWorkflows")];
    assert_eq!(figures.sum("bridgebook_batch_items_sum", &operation), 20.0);
    assert_eq!(
        figures.sum("bridgebook_batch_wait_seconds_count", &operation),
        20.0
    );
    assert_eq!(figures.sum("bridgebook_queue_items", &operation), 0.0);
    assert_eq!(figures.sum("bridgebook_queue_tenants", &operation), 0.0);
    assert!(figures.sum("bridgebook_read_memory_wait_seconds_count", &[]) >= 1.0);
    assert_eq!(figures.sum("bridgebook_queries", &[]), 0.0);
    let batches = figures.sum("bridgebook_batch_seconds_count", &operation);
    let pool = [("pool", "batches")];
    assert!(figures.sum("bridgebook_database_statements_total", &pool) >= batches);
    assert!(figures.sum("bridgebook_pool_connections", &pool) >= 1.0);
    assert_eq!(figures.sum("bridgebook_serving", &[]), 1.0);
    assert!(figures.sum("process_resident_memory_bytes", &[]) > 0.0);
}

#[tokio::test]
async fn calls_and_items_are_counted_for_the_tenants_that_take_most() {
    let app = App::start_with(|config| {
        config.metrics_namespaces = 1;
        config.limits.quotas.namespace.calls_in_progress = NonZeroU32::new(1);
    });
    let app = app.await;
    let tenant = app.tenant();
    let workflow = tenant.start().await;
    let steps = (0..7).map(|order| tenant.new_step(&workflow, order));
    tenant.record_steps(steps.collect()).await;
    app.tenant().start().await;
    let count = |name: &str, namespace: &str| {
        let name = format!("bridgebook_namespace_{name}_total");
        app.figures().sum(&name, &[("namespace", namespace)])
    };
    assert_eq!(count("calls", &tenant.namespace), 2.0);
    assert_eq!(count("items", &tenant.namespace), 8.0);
    assert_eq!(count("rejected", &tenant.namespace), 0.0);
    assert_eq!(count("calls", "(others)"), 1.0);
    assert_eq!(count("items", "(others)"), 1.0);
    eventually("a quota rejects a call", async || {
        let starts = (0..20).map(async |_| {
            let new = tenant.new_workflow();
            tenant.client.clone().start_workflow(new).await
        });
        join_all(starts).await;
        (count("rejected", &tenant.namespace) > 0.0).then_some(())
    })
    .await;
}

/// The tokens of a flood that succeeds are named.
#[tokio::test]
async fn calls_and_items_are_counted_for_the_tokens_that_take_most() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.metrics_tokens = 1;
        config.limits.quotas.namespace.calls_per_second = NonZeroU32::new(5);
        config.limits.quotas.token.calls_per_second = NonZeroU32::new(10);
    });
    let (app, mut calls) = (app.await, 0.0);
    let tenant = app.tenant();
    let token = app.issue(Role::Writer, &[&tenant.namespace]).await;
    let other = app.issue(Role::Writer, &[&tenant.namespace]).await;
    let client = token.client(&app.channel);
    let started = client
        .workflows()
        .start_workflow(tenant.new_workflow())
        .await;
    let workflow = started.unwrap().into_inner().workflow.unwrap();
    let steps = (0..7).map(|order| tenant.new_step(&workflow, order));
    let steps = BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps: steps.collect(),
    };
    client.workflows().batch_record_steps(steps).await.unwrap();
    // Calls without a namespace, and with one that the token does not cover.
    let info = GetServerInfoRequest {};
    client.server().get_server_info(info).await.unwrap();
    let elsewhere = app.tenant().new_workflow();
    let denied = client.workflows().start_workflow(elsewhere).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let mut others = other.client(&app.channel).server();
    others.get_server_info(info).await.unwrap();
    let count = |name: &str, id: &str| {
        let name = format!("bridgebook_token_{name}_total");
        app.figures().sum(&name, &[("token_id", id)])
    };
    assert_eq!(count("calls", &token.id), 4.0);
    assert_eq!(count("items", &token.id), 8.0);
    assert_eq!(count("rejected", &token.id), 0.0);
    assert_eq!(count("calls", "(others)"), 1.0);
    let mut limits = BTreeMap::new();
    while limits.len() < 2 {
        match client
            .workflows()
            .start_workflow(tenant.new_workflow())
            .await
        {
            Ok(_) => calls += 1.0,
            Err(status) => {
                let info = status.get_error_details().error_info().unwrap().clone();
                *limits
                    .entry(info.metadata["setting"].clone())
                    .or_insert(0.0) += 1.0;
            }
        }
    }
    assert_eq!(count("calls", &token.id), 4.0 + calls);
    let rejected: f64 = limits.values().sum();
    assert_eq!(count("rejected", &token.id), rejected);
}

#[tokio::test]
async fn the_sampler_reads_nodes_and_the_journal_from_the_database() {
    let app = App::start().await;
    let tenant = app.tenant();
    tenant.start().await;
    let node = RegisterNodeRequest {
        namespace: tenant.namespace.clone(),
        node_id: new_id(),
        node_type: "reducer".into(),
        node_version: "1.0.0".into(),
        ..RegisterNodeRequest::default()
    };
    let mut registry = RegistryServiceClient::new(app.channel.clone());
    let silent = RegisterNodeRequest {
        node_id: new_id(),
        ..node.clone()
    };
    registry.register_node(node).await.unwrap();
    let silence = format!(
        "UPDATE node_registrations SET last_heartbeat = now() - INTERVAL '1 day'
          WHERE node_id = '{}'",
        silent.node_id
    );
    registry.register_node(silent).await.unwrap();
    let mut database = app.schema.connect().await;
    database.batch_execute(&silence).await.unwrap();
    // A replica with a port for metrics samples as soon as it serves.
    let replica = App::start_on(app.schema.clone(), |config| {
        config.metrics_listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    })
    .await;
    eventually("the sampler has run", || async {
        let figures = replica.figures();
        let journal = figures.sum("bridgebook_journal_position", &[]);
        (journal == 3.0).then(|| {
            let healthy = [("health_status", "HEALTHY")];
            assert_eq!(figures.sum("bridgebook_nodes", &healthy), 2.0);
            assert_eq!(figures.sum("bridgebook_nodes_stale", &[]), 1.0);
        })
    })
    .await;
}

#[tokio::test]
async fn readiness_follows_the_database_and_liveness_does_not() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let mut server = Server::spawn(&[
        "--database-url",
        &url,
        "--migrate",
        "--metrics-listen",
        FREE_PORT,
    ]);
    let address = server.metrics_address();
    server.serving().await;
    readiness(address, 200).await;
    let frozen = Frozen::freeze(&cluster);
    readiness(address, 503).await;
    assert_eq!(get(address, "/livez").await.unwrap().0, 200);
    drop(frozen);
    readiness(address, 200).await;
}

#[tokio::test]
async fn a_draining_server_is_not_ready_while_it_still_serves() {
    let app = App::start().await;
    let url = app.schema.url();
    let mut server = Server::spawn(&[
        "--database-url",
        &url,
        "--metrics-listen",
        FREE_PORT,
        "--drain-pause",
        "60",
    ]);
    let address = server.metrics_address();
    let tenant = tenant_on(server.serving().await);
    server.signal("TERM");
    readiness(address, 503).await;
    assert_eq!(get(address, "/livez").await.unwrap().0, 200);
    // On a new connection, like a load balancer that has not noticed the drain yet.
    tenant_on(server.channel()).start().await;
    tenant.start().await;
    server.kill();
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_block_others() {
    let app = App::start().await;
    let mut server = with_metrics_port(&app);
    let address = server.metrics_address();
    let mut mute = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: test\r\n";
        stream.write_all(request).await.unwrap();
        mute.push(stream);
    }
    let answer = timeout(Duration::from_secs(2), get(address, "/livez")).await;
    assert_eq!(answer.unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let app = App::start().await;
    let mut server = with_metrics_port(&app);
    let address = server.metrics_address();
    let (status, body) = get(address, "/").await.unwrap();
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "{body}");
}
