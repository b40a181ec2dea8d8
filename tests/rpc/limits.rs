//! Limits: load over them is shed at once, with a reason.

use std::time::{Duration, Instant};

use bridgebook::{
    config::Config,
    proto::v1::{
        BatchRecordStepsRequest, GetWorkflowRequest, ListWorkflowsRequest, StartWorkflowRequest,
        StartWorkflowResponse, WorkflowState, get_workflow_request::Key,
        workflow_service_client::WorkflowServiceClient,
    },
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use serde_json::json;
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::{Code, Response, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::support::{
    ANY_WINDOW, App, Failure, Tenant, Wire, connect, document, eventually, failure, overload,
};

fn exhausted(reason: &str) -> Failure {
    Failure::new(Code::ResourceExhausted, reason)
}

async fn is_healthy(channel: &Channel) -> bool {
    let mut health = HealthClient::new(channel.clone());
    health.check(HealthCheckRequest::default()).await.is_ok()
}

async fn with(change: impl FnOnce(&mut Config)) -> (App, Tenant) {
    let app = App::start_with(change).await;
    let tenant = app.tenant();
    (app, tenant)
}

fn listing(tenant: &Tenant) -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        ..ListWorkflowsRequest::default()
    }
}

/// Returns the limit of an overloaded service, and its setting.
fn of(limit: &str, setting: &str) -> (String, Option<String>) {
    (limit.into(), Some(setting.into()))
}

/// Begins a call that ends when the blocker commits.
async fn call_in_progress(
    app: &App,
    tenant: &Tenant,
    blocker: &mut AsyncPgConnection,
) -> JoinHandle<Result<Response<StartWorkflowResponse>, Status>> {
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let (mut client, new) = (tenant.client.clone(), tenant.new_workflow());
    let call = tokio::spawn(async move { client.start_workflow(new).await });
    let waiting = "SELECT count(*) FROM pg_locks
                    WHERE NOT granted AND relation = 'workflow_executions'::regclass";
    eventually("the call waits for the lock", async || {
        (app.schema.count(waiting).await > 0).then_some(())
    })
    .await;
    call
}

/// Returns the delay after which a client should retry, if it should.
fn delay(status: &Status) -> Option<Duration> {
    let details = status.get_error_details();
    details.retry_info().and_then(|info| info.retry_delay)
}

#[tokio::test]
async fn calls_over_the_concurrency_limit_are_shed_but_not_health_checks() {
    let (app, tenant) = with(|config| config.limits.requests = Some(1)).await;
    let mut blocker = app.schema.connect().await;
    let under_way = call_in_progress(&app, &tenant, &mut blocker).await;
    let second = tenant.client.clone().list_workflows(listing(&tenant)).await;
    let status = second.unwrap_err();
    assert!(delay(&status).is_some());
    assert_eq!(overload(status), of("calls_in_progress", "--max-requests"));
    assert!(is_healthy(&app.channel).await);
    blocker.batch_execute("COMMIT").await.unwrap();
    under_way.await.unwrap().unwrap();
    tenant.start().await;
}

#[tokio::test]
async fn requests_over_the_byte_budget_are_shed() {
    let (app, tenant) = with(|config| config.limits.request_bytes = Some(100_000)).await;
    let request = |length| StartWorkflowRequest {
        metadata: document(json!({"a": "x".repeat(length)})),
        ..tenant.new_workflow()
    };
    for _ in 0..3 {
        tenant.start_as(request(60_000)).await;
    }
    let failed = tenant.client.clone().start_workflow(request(120_000)).await;
    let expected = of("request_memory", "--max-request-memory");
    assert_eq!(overload(failed.unwrap_err()), expected);
    let count = "SELECT count(*) FROM workflow_executions";
    assert_eq!(app.schema.count(count).await, 3);
}

/// The responses that the client does not read hold the byte budget.
#[tokio::test]
async fn health_checks_have_no_part_in_the_byte_budget() {
    let (app, tenant) = with(|config| config.limits.request_bytes = Some(1)).await;
    let request = tenant.new_workflow();
    let failed = tenant.client.clone().start_workflow(request).await;
    assert_eq!(failure(failed), exhausted("OVERLOADED"));
    assert!(is_healthy(&app.channel).await);
}

#[tokio::test]
async fn reads_over_the_byte_budget_are_shed_before_their_responses_are_made() {
    let (app, tenant) = with(|config| config.limits.request_bytes = Some(5_000_000)).await;
    let workflow = StartWorkflowRequest {
        metadata: document(json!({"a": "x".repeat(900_000)})),
        ..tenant.new_workflow()
    };
    let workflow = tenant.start_as(workflow).await;
    let request = GetWorkflowRequest {
        namespace: tenant.namespace.clone(),
        key: Some(Key::Id(workflow.id.clone())),
        include_stamps: false,
    };
    let wire = Wire::connect(app.address, 0).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(wire.send(GET, &request).await);
    }
    let (mut unread, mut shed) = (Vec::new(), 0);
    for call in calls {
        let response = call.await.unwrap();
        match Status::from_header_map(response.headers()) {
            None => unread.push(response),
            Some(status) => {
                let expected = of("response_memory", "--max-request-memory");
                assert_eq!(overload(status), expected);
                shed += 1;
            }
        }
    }
    // A client that is alone may hold half of the budget.
    assert_eq!((unread.len(), shed), (3, 17));
    // The work of a write is done when its response is made.
    let moved = tenant.transition(tenant.to(&workflow, WorkflowState::Processing));
    assert!(moved.await.applied);
    drop((unread, wire));
    eventually("the budget is free", async || {
        let mut client = tenant.client.clone();
        client.get_workflow(request.clone()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn connections_over_the_limit_get_an_error_but_health_answers() {
    let (app, tenant) = with(|config| config.limits.connection.connections = 1).await;
    let mut blocker = app.schema.connect().await;
    let under_way = call_in_progress(&app, &tenant, &mut blocker).await;
    let surplus = connect(app.address);
    let mut client = WorkflowServiceClient::new(surplus.clone());
    let status = client.list_workflows(listing(&tenant)).await.unwrap_err();
    assert!(delay(&status).is_some());
    assert_eq!(
        failure::<()>(Err(status)),
        exhausted("TOO_MANY_CONNECTIONS")
    );
    assert!(is_healthy(&surplus).await);
    blocker.batch_execute("COMMIT").await.unwrap();
    under_way.await.unwrap().unwrap();
    let figures = app.figures();
    assert_eq!(figures.sum("bridgebook_connections", &[]), 2.0);
    assert_eq!(
        figures.sum("bridgebook_connections_accepted_total", &[]),
        2.0
    );
    let refused = "bridgebook_connections_refused_total";
    assert_eq!(figures.sum(refused, &[("cause", "limit")]), 1.0);
}

#[tokio::test]
async fn limits_on_content_can_be_lowered() {
    let (_app, tenant) = with(|config| {
        let content = &mut config.limits.content;
        content.message_bytes = 5000;
        content.json_bytes = 1000;
        content.json_depth = 3;
        content.batch_items = 2;
        content.page_rows = 2;
    })
    .await;
    let start = async |metadata| {
        let request = StartWorkflowRequest {
            metadata: document(metadata),
            ..tenant.new_workflow()
        };
        tenant.client.clone().start_workflow(request).await
    };
    let text = |length: usize| "x".repeat(length);
    start(json!({"a": text(990), "b": 1})).await.unwrap_err();
    start(json!({"a": text(980), "b": 1})).await.unwrap();
    start(json!({"a": {"b": [1]}})).await.unwrap();
    let failed = failure(start(json!({"a": {"b": [{}]}})).await);
    assert_eq!(failed, Failure::invalid(&["metadata"]));
    let failed = failure(start(json!({"a": text(1000)})).await);
    assert_eq!(failed, Failure::invalid(&["metadata"]));
    let status = start(json!({"a": text(5000)})).await.unwrap_err();
    assert!(status.message().contains("5000"), "{status:?}");
    assert_eq!(failure::<()>(Err(status)), exhausted("MESSAGE_TOO_LARGE"));

    let workflow = tenant.start().await;
    let steps = [1, 2, 3].map(|order| tenant.new_step(&workflow, order));
    let request = BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps: steps.to_vec(),
    };
    let failed = tenant.client.clone().batch_record_steps(request).await;
    assert_eq!(failure(failed), Failure::invalid(&["steps"]));
    let page = tenant.client.clone().list_workflows(listing(&tenant)).await;
    assert_eq!(page.unwrap().into_inner().workflows.len(), 2);
}

const GET: &str = "bridgebook.v1.WorkflowService/GetWorkflow";
const LIST: &str = "bridgebook.v1.WorkflowService/ListWorkflows";

#[tokio::test]
async fn a_connection_without_calls_is_closed() {
    let (app, _) = with(|config| {
        config.limits.connection.max_idle = Duration::from_millis(200);
        config.limits.connection.check_interval = Duration::from_millis(50);
    })
    .await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    // Gracefully: GOAWAY comes first.
    tokio::time::timeout(Duration::from_secs(30), wire.ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    // The same holds for a connection without a preface.
    let silent = TcpStream::connect(app.address).await.unwrap();
    eventually("it is closed", async || {
        silent.readable().await.unwrap();
        matches!(silent.try_read(&mut [0; 64]), Ok(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_old_connection_is_closed_after_its_calls() {
    let (app, tenant) = with(|config| {
        config.limits.connection.max_age = Some(Duration::from_millis(300));
        config.limits.connection.check_interval = Duration::from_millis(50);
    })
    .await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let answer = wire.send(LIST, &listing(&tenant)).await;
    eventually("it is told to go", async || {
        let ready = wire.sender.clone().ready().await;
        let sent = ready.map(|mut sender| sender.send_request(wire.head(LIST), true));
        sent.and_then(|sent| sent).err()
    })
    .await;
    assert!(!wire.ended.is_finished(), "the call is under way");
    blocker.batch_execute("COMMIT").await.unwrap();
    assert!(answer.await.unwrap().status().is_success());
    drop(wire.sender);
    tokio::time::timeout(Duration::from_secs(30), wire.ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_frees_its_bytes() {
    const STALL: Duration = Duration::from_millis(1500);
    let (app, tenant) = with(|config| {
        config.call_timeout = Duration::from_secs(1);
        config.limits.request_bytes = Some(200_000);
        config.limits.connection.stall_timeout = STALL;
        config.limits.connection.check_interval = Duration::from_millis(100);
    })
    .await;
    let small = tenant.start().await;
    let workflow = StartWorkflowRequest {
        metadata: document(json!({"a": "x".repeat(40_000)})),
        ..tenant.new_workflow()
    };
    tenant.start_as(workflow).await;
    let begun = Instant::now();
    let wire = Wire::connect(app.address, 0).await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(wire.send(LIST, &listing(&tenant)).await);
    }
    let status = eventually(
        "the unread responses hold the share of the address",
        async || {
            let mut client = tenant.client.clone();
            client.list_workflows(listing(&tenant)).await.err()
        },
    )
    .await;
    assert_eq!(failure::<()>(Err(status)), exhausted("OVERLOADED"));
    let read = GetWorkflowRequest {
        namespace: tenant.namespace.clone(),
        key: Some(Key::Id(small.id)),
        include_stamps: false,
    };
    let read = tenant.client.clone().get_workflow(read).await;
    read.expect("small responses have room beside large ones");
    let _ = tokio::time::timeout(Duration::from_secs(60), wire.ended)
        .await
        .expect("the connection is closed");
    assert!(begun.elapsed() >= STALL);
    eventually("the bytes are free", async || {
        let mut client = tenant.client.clone();
        client.list_workflows(listing(&tenant)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_client_that_keeps_resetting_streams_is_disconnected() {
    let (app, tenant) = with(|_| {}).await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    for _ in 0..100_000 {
        let Ok(mut ready) = wire.sender.clone().ready().await else {
            break;
        };
        let Ok((_, mut body)) = ready.send_request(wire.head(LIST), false) else {
            break;
        };
        body.send_reset(h2::Reason::CANCEL);
        if wire.ended.is_finished() {
            break;
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(30), wire.ended).await;
    // The client reads ENHANCE_YOUR_CALM, or the connection is reset before that.
    ended.unwrap().unwrap().unwrap_err();
    tenant.start().await;
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let (app, tenant) = with(|_| {}).await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let mut large = wire.head(LIST);
    let value = "x".repeat(100_000).parse().unwrap();
    large.headers_mut().insert("x-large", value);
    let mut ready = wire.sender.ready().await.unwrap();
    let refused = match ready.send_request(large, true) {
        Ok((answer, _)) => answer.await.is_err_and(|_| true) || ready.ready().await.is_ok(),
        Err(_) => true,
    };
    assert!(refused);
    tenant.start().await;
}
