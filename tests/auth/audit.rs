//! The audit log: denied calls and admin calls.

use bridgebook::{
    client::Client,
    domain::role::Role,
    proto::v1::{
        CreateTokenRequest, GetSystemHealthRequest, ListRetentionPoliciesRequest,
        ListWorkflowsRequest, RevokeTokenRequest, SetQuotaRequest, StartWorkflowRequest,
        set_quota_request,
    },
};

use diesel_async::SimpleAsyncConnection;
use tonic::Code;

use crate::support::{App, Server, WAITING_FOR_LOCK, eventually, new_id};

/// A flood is found by the lines of the calls that it makes the service reject.
#[tokio::test]
async fn a_call_that_an_overloaded_service_rejects_is_logged_with_its_token_and_the_limit() {
    let app = App::start().await;
    let url = app.schema.url();
    let arguments = ["--auth", "tokens", "--database-url", &url];
    let server = Server::spawn(&[&arguments[..], &["--max-requests", "1"]].concat());
    let channel = server.serving().await;
    let writer = app.issue(Role::Writer, &["team-a"]).await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let start = StartWorkflowRequest {
        namespace: "team-a".into(),
        correlation_id: new_id(),
        workflow_type: "test".into(),
        ..StartWorkflowRequest::default()
    };
    let mut workflows = writer.client(&channel).workflows();
    let started = tokio::spawn(async move { workflows.start_workflow(start).await });
    eventually("the call waits for the lock", async || {
        (app.schema.sessions(WAITING_FOR_LOCK).await > 0).then_some(())
    })
    .await;
    let listing = ListWorkflowsRequest::default();
    let mut workflows = writer.client(&channel).workflows();
    let refused = workflows.list_workflows(listing).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let parts = [
        "call rejected",
        "OVERLOADED",
        &format!("token_id={}", writer.id),
        "limit=\"calls_in_progress\"",
        "setting=\"--max-requests\"",
    ];
    assert_one(&lines(&server, "ListWorkflows").await, &parts);
    // A call that names a token, and does not have its secret, may be of another caller.
    let (id, _) = writer.credential.rsplit_once('_').unwrap();
    let forged = Client::with_token(channel, &format!("{id}_{}", "0".repeat(64))).unwrap();
    let machines = bridgebook::proto::v1::ListMachinesRequest::default();
    forged.fsm().list_machines(machines).await.unwrap_err();
    let forged = lines(&server, "ListMachines").await;
    assert_one(&forged, &["call rejected", "OVERLOADED"]);
    assert!(!forged[0].contains(&writer.id), "{forged:?}");
    blocker.batch_execute("COMMIT").await.unwrap();
    started.await.unwrap().unwrap();
}

/// Returns the lines of the log about an RPC, once there are any.
async fn lines(server: &Server, rpc: &str) -> Vec<String> {
    eventually("the call is logged", async || {
        let text = server.log();
        let lines = text.lines().filter(|line| line.contains(rpc));
        let lines: Vec<_> = lines.map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    })
    .await
}

fn assert_one(lines: &[String], parts: &[&str]) {
    let [line] = lines else {
        panic!("not one line: {lines:#?}")
    };
    for part in parts {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn denied_calls_and_admin_calls_are_logged_with_one_line_each() {
    let app = App::start().await;
    let url = app.schema.url();
    let arguments = ["--auth", "tokens", "--database-url", &url];
    let server = Server::spawn(&arguments);
    let channel = server.serving().await;
    let reader = app.issue(Role::Reader, &["team-a"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;

    // Allowed calls are not logged.
    let listing = |namespace: &str| ListWorkflowsRequest {
        namespace: namespace.to_owned(),
        ..ListWorkflowsRequest::default()
    };
    let mut workflows = reader.client(&channel).workflows();
    workflows.list_workflows(listing("team-a")).await.unwrap();
    workflows
        .list_workflows(listing("team-b"))
        .await
        .unwrap_err();
    let parts = [
        "WARN",
        "call rejected",
        "NAMESPACE_DENIED",
        "team-b",
        &reader.id,
        "peer=127.0.0.1",
    ];
    assert_one(&lines(&server, "ListWorkflows").await, &parts);

    let start = StartWorkflowRequest {
        namespace: "team-a".into(),
        correlation_id: new_id(),
        workflow_type: "test".into(),
        ..StartWorkflowRequest::default()
    };
    workflows.start_workflow(start.clone()).await.unwrap_err();
    let parts = ["call rejected", "ROLE_TOO_LOW", "team-a", &reader.id];
    assert_one(&lines(&server, "StartWorkflow").await, &parts);

    let stranger = Client::new(channel.clone());
    stranger
        .fsm()
        .list_machines(bridgebook::proto::v1::ListMachinesRequest::default())
        .await
        .unwrap_err();
    let parts = ["call rejected", "CREDENTIAL_MISSING"];
    assert_one(&lines(&server, "ListMachines").await, &parts);

    let mut operator = reader.client(&channel).admin();
    let query = GetSystemHealthRequest::default();
    operator.get_system_health(query).await.unwrap_err();
    let parts = ["call rejected", "ROLE_TOO_LOW", &reader.id];
    assert_one(&lines(&server, "GetSystemHealth").await, &parts);

    let mut operator = admin.client(&channel).admin();
    let wanted = CreateTokenRequest {
        id: new_id(),
        name: "of the test".into(),
        role: bridgebook::proto::v1::Role::Admin.into(),
        ..CreateTokenRequest::default()
    };
    let created = operator.create_token(wanted.clone()).await.unwrap();
    let parts = ["INFO", "admin call", &admin.id, &wanted.id];
    assert_one(&lines(&server, "CreateToken").await, &parts);
    let revocation = RevokeTokenRequest {
        id: reader.id.clone(),
    };
    operator.revoke_token(revocation).await.unwrap();
    let parts = ["admin call", &admin.id, &reader.id];
    assert_one(&lines(&server, "RevokeToken").await, &parts);
    let failing = RevokeTokenRequest { id: new_id() };
    operator.revoke_token(failing).await.unwrap_err();
    let both = eventually("the second call is logged", async || {
        let lines = lines(&server, "RevokeToken").await;
        (lines.len() == 2).then_some(lines)
    });
    assert_one(&both.await[1..], &["admin call", "TOKEN_NOT_FOUND"]);

    let quota = SetQuotaRequest {
        subject: Some(set_quota_request::Subject::Namespace("team-a".into())),
        calls_per_second: Some(71),
        items_per_second: Some(0),
        calls_in_progress: None,
        weight: Some(3),
    };
    operator.set_quota(quota).await.unwrap();
    let parts = [
        "admin call",
        "team-a",
        "calls_per_second=71",
        "items_per_second=0",
        "weight=3",
    ];
    let line = lines(&server, "SetQuota").await;
    assert_one(&line, &parts);
    assert!(!line[0].contains("calls_in_progress"));

    // The log has no secrets.
    let text = server.log();
    for credential in [
        &reader.credential,
        &admin.credential,
        &created.into_inner().credential,
    ] {
        let (_, secret) = credential.rsplit_once('_').unwrap();
        assert!(!text.contains(secret));
    }
}

#[tokio::test]
async fn an_admin_call_that_fails_internally_is_logged_with_its_cause() {
    let app = App::start().await;
    let url = app.schema.url();
    let server = Server::spawn(&["--database-url", &url]).expect_errors();
    let channel = server.serving().await;
    let rename = "ALTER TABLE retention_policies RENAME TO renamed";
    let mut connection = app.schema.connect().await;
    connection.batch_execute(rename).await.unwrap();
    let mut operator = Client::new(channel).admin();
    let request = ListRetentionPoliciesRequest::default();
    let failed = operator.list_retention_policies(request).await;
    assert_eq!(failed.unwrap_err().code(), Code::Internal);
    let cause = "relation \\\"retention_policies\\\" does not exist";
    let parts = ["ERROR", "admin call", "INTERNAL", cause];
    assert_one(&lines(&server, "ListRetentionPolicies").await, &parts);
}

#[tokio::test]
async fn an_admin_call_that_is_cancelled_is_logged() {
    let app = App::start().await;
    let url = app.schema.url();
    let arguments = ["--auth", "tokens", "--database-url", &url];
    let server = Server::spawn(&arguments);
    let channel = server.serving().await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    // Fills the token cache.
    let health = GetSystemHealthRequest::default();
    admin
        .client(&channel)
        .admin()
        .get_system_health(health)
        .await
        .unwrap();
    let mut blocker = app.schema.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE api_tokens IN EXCLUSIVE MODE")
        .await
        .unwrap();

    let id = new_id();
    let create = CreateTokenRequest {
        id: id.clone(),
        name: "cut off".into(),
        role: bridgebook::proto::v1::Role::Reader.into(),
        namespaces: vec!["team-a".into()],
        ..CreateTokenRequest::default()
    };
    let mut client = admin.client(&channel).admin();
    tokio::select! {
        answer = client.create_token(create) => panic!("the call did not wait: {answer:?}"),
        () = eventually("the call waits for the lock", || async {
            (app.schema.sessions(WAITING_FOR_LOCK).await == 1).then_some(())
        }) => {}
    }
    assert_one(
        &lines(&server, "CreateToken").await,
        &[
            "admin call",
            "Cancelled",
            &admin.id,
            &format!("target_token_id=\"{id}\""),
        ],
    );
}
