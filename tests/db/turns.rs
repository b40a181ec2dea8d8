//! Lists of some owners while those of another wait for a lock.

use std::time::Duration;

use bridgebook::{
    client::Authorized,
    config::Auth,
    domain::role::Role,
    proto::v1::{
        GetSystemHealthRequest, ListStampsRequest, ListWorkflowsRequest,
        workflow_service_client::WorkflowServiceClient,
    },
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use crate::support::{App, Failure, Figures, WAITING_FOR_LOCK, eventually, failure};

/// A quarter of these are for queries of tenants, and one for those of the service and of operators.
const CONNECTIONS: u32 = 16;

/// Longer than the test takes.
const PATIENCE: Duration = Duration::from_secs(20);

type Workflows = WorkflowServiceClient<Authorized>;

async fn start() -> (App, AsyncPgConnection) {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.database_connections = CONNECTIONS;
    });
    let app = app.await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE metadata_stamps";
    blocker.batch_execute(lock).await.unwrap();
    (app, blocker)
}

/// Lists the stamps of each namespace twice at a time. The lists wait for the lock.
fn flood(workflows: &Workflows, namespaces: Vec<String>) -> JoinSet<Result<(), Status>> {
    let namespaces = namespaces.iter().flat_map(|it| [it, it]);
    let lists = namespaces.map(|namespace| {
        let mut request = Request::new(ListStampsRequest {
            namespace: namespace.clone(),
            ..ListStampsRequest::default()
        });
        request.set_timeout(PATIENCE);
        let mut workflows = workflows.clone();
        async move { workflows.list_stamps(request).await.map(drop) }
    });
    lists.collect()
}

async fn list_workflows(mut workflows: Workflows, namespace: &str) -> Result<(), Status> {
    let request = ListWorkflowsRequest {
        namespace: namespace.into(),
        ..ListWorkflowsRequest::default()
    };
    workflows.list_workflows(request).await.map(drop)
}

/// Waits until a number of queries wait for the lock.
async fn until_blocked(app: &App, queries: i64) {
    eventually("the lists wait for the lock", || async {
        (app.schema.sessions(WAITING_FOR_LOCK).await == queries).then_some(())
    })
    .await;
}

/// Ends the lock. The blocked lists succeed; the others did not get a connection in time.
async fn unblock(
    mut blocker: AsyncPgConnection,
    flood: JoinSet<Result<(), Status>>,
    blocked: usize,
) {
    blocker.batch_execute("ROLLBACK").await.unwrap();
    let outcomes = flood.join_all().await;
    let full = Failure::new(Code::ResourceExhausted, "QUEUE_FULL");
    let (listed, rejected): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert!(rejected.into_iter().all(|outcome| failure(outcome) == full));
    assert!(listed.len() >= blocked);
}

#[tokio::test]
async fn lists_of_a_token_with_many_namespaces_do_not_hold_up_another_token() {
    let (app, blocker) = start().await;
    let a = app.issue(Role::Reader, &["a-*"]).await;
    let b = app.issue(Role::Reader, &["b"]).await;
    let namespaces = (0..20).map(|number| format!("a-{number}")).collect();
    let flood = flood(&a.client(&app.channel).workflows(), namespaces);
    until_blocked(&app, 3).await;
    let b = b.client(&app.channel).workflows();
    list_workflows(b, "b").await.unwrap();
    until_blocked(&app, 3).await;
    unblock(blocker, flood, 3).await;
}

#[tokio::test]
async fn lists_of_a_namespace_do_not_hold_up_others_of_its_token() {
    let (app, blocker) = start().await;
    let token = app.issue(Role::Reader, &["*"]).await;
    let workflows = token.client(&app.channel).workflows();
    let flood = flood(&workflows, vec!["a".into(); 5]);
    until_blocked(&app, 2).await;
    list_workflows(workflows, "b").await.unwrap();
    unblock(blocker, flood, 2).await;
}

#[tokio::test]
async fn lists_of_tenants_leave_a_connection_to_operators() {
    let (app, mut blocker) = start().await;
    let mut floods = Vec::new();
    for name in ["a", "b"] {
        let token = app.issue(Role::Reader, &[&format!("{name}-*")]).await;
        let namespaces = (0..4).map(|number| format!("{name}-{number}")).collect();
        floods.push(flood(&token.client(&app.channel).workflows(), namespaces));
    }
    let operator = app.issue(Role::Admin, &["*"]).await;
    until_blocked(&app, 4).await;
    let health = GetSystemHealthRequest::default();
    let mut admin = operator.client(&app.channel).admin();
    admin.get_system_health(health).await.unwrap();
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for flood in floods {
        assert!(flood.join_all().await.iter().any(Result::is_ok));
    }
}

/// A list that its caller cancels goes on until PostgreSQL has cancelled it.
#[tokio::test]
async fn the_turn_of_a_cancelled_list_lasts_until_its_connection_is_free() {
    let (app, mut blocker) = start().await;
    let token = app.issue(Role::Reader, &["a"]).await;
    let workflows = token.client(&app.channel).workflows();
    let list = flood(&workflows, vec!["a".into()]);
    until_blocked(&app, 2).await;
    let count = |figures: &Figures, name: &str, state: &str| figures.sum(name, &[("state", state)]);
    let figures = app.figures();
    assert_eq!(count(&figures, "bridgebook_queries", "running"), 2.0);
    drop(list);
    eventually("its turn ends", || async {
        let figures = app.figures();
        let running = count(&figures, "bridgebook_queries", "running");
        let queries = [("pool", "queries"), ("state", "busy")];
        // The number of turns was read first.
        let busy = figures.sum("bridgebook_pool_connections", &queries);
        assert!(busy <= running, "{busy} connections in {running} turns");
        (running == 0.0).then_some(())
    })
    .await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
}
