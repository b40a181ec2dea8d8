//! Tokens share the slots of calls in progress, and administrators always get one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bridgebook::{
    config::Auth,
    domain::role::Role,
    proto::v1::{
        GetNodeRequest, GetServerInfoRequest, ListQuotasRequest, ListTokensRequest,
        ListWorkflowsRequest,
    },
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::{App, Failure, Issued, connect, eventually, failure};

/// Connections of one token that call without a pause. A connection's first call never waits in the
/// client.
const CONNECTIONS: usize = 30;

async fn guarded(requests: usize) -> App {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.requests = Some(requests);
    });
    app.await
}

/// Lists that wait, over many connections, until this is dropped.
struct WaitingLists {
    _calls: JoinSet<()>,
    _lock: AsyncPgConnection,
}

/// Keeps lists of a token waiting. Returns once some of them are rejected, because its share of the
/// slots is used up.
async fn keep_waiting(app: &App, token: &Issued) -> WaitingLists {
    let mut lock = app.schema.connect().await;
    let statement = "BEGIN; LOCK TABLE workflow_executions";
    lock.batch_execute(statement).await.unwrap();
    let (mut calls, rejected) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..CONNECTIONS {
        let client = token.client(&connect(app.address));
        let rejected = Arc::clone(&rejected);
        calls.spawn(async move {
            loop {
                let request = ListWorkflowsRequest {
                    namespace: "team-a".into(),
                    ..ListWorkflowsRequest::default()
                };
                let failed = client.workflows().list_workflows(request).await;
                if failure(failed) == overloaded() {
                    rejected.fetch_add(1, Ordering::Relaxed);
                    // Leaves the machine to others.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    eventually("calls are rejected", async || {
        (rejected.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    WaitingLists {
        _calls: calls,
        _lock: lock,
    }
}

fn overloaded() -> Failure {
    Failure::new(Code::ResourceExhausted, "OVERLOADED")
}

/// Gets a node that does not exist.
async fn get_node(app: &App, token: &Issued) -> Failure {
    let request = GetNodeRequest {
        namespace: "team-b".into(),
        node_id: "none".into(),
    };
    let mut registry = token.client(&app.channel).registry();
    failure(registry.get_node(request).await)
}

async fn get_server_info(app: &App, token: &Issued) -> Result<(), Status> {
    let mut server = token.client(&app.channel).server();
    let info = server.get_server_info(GetServerInfoRequest::default());
    info.await.map(drop)
}

#[tokio::test]
async fn waiting_lists_of_a_token_leave_slots_to_others() {
    let app = guarded(10).await;
    let greedy = app.issue(Role::Reader, &["team-a"]).await;
    let other = app.issue(Role::Reader, &["team-b"]).await;
    let _waiting = keep_waiting(&app, &greedy).await;
    for _ in 0..50 {
        let failure = get_node(&app, &other).await;
        assert_eq!(failure, Failure::new(Code::NotFound, "NODE_NOT_FOUND"));
    }
}

#[tokio::test]
async fn administrators_get_in_while_others_hold_all_slots() {
    let app = guarded(1).await;
    let greedy = app.issue(Role::Reader, &["team-a"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let _waiting = keep_waiting(&app, &greedy).await;
    let administration = admin.client(&app.channel).admin();
    for _ in 0..20 {
        let mut administration = administration.clone();
        let tokens = administration.list_tokens(ListTokensRequest::default());
        tokens.await.unwrap();
        let quotas = administration.list_quotas(ListQuotasRequest::default());
        quotas.await.unwrap();
        get_server_info(&app, &admin).await.unwrap();
    }
    // Neither other calls of administrators nor such calls of others have slots of their own.
    eventually("a call of a tenant is rejected", async || {
        (get_node(&app, &admin).await == overloaded()).then_some(())
    })
    .await;
    eventually("a call of another role is rejected", async || {
        let rejected = get_server_info(&app, &greedy).await;
        (rejected.is_err() && failure(rejected) == overloaded()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn administrators_get_in_while_no_memory_is_free() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(1);
    });
    let app = app.await;
    let reader = app.issue(Role::Reader, &["*"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    assert_eq!(get_node(&app, &reader).await, overloaded());
    assert_eq!(get_node(&app, &admin).await, overloaded());
    let mut administration = admin.client(&app.channel).admin();
    let tokens = administration.list_tokens(ListTokensRequest::default());
    assert_eq!(tokens.await.unwrap().into_inner().tokens.len(), 2);
    get_server_info(&app, &admin).await.unwrap();
}
