//! Equal lines about calls: one per cause and second, with a count.

use bridgebook::{
    client::Client,
    domain::role::Role,
    proto::{
        Rpc,
        v1::{GetWorkflowRequest, StartWorkflowRequest, get_workflow_request::Key},
    },
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::support::{ANY_WINDOW, App, Server, Wire, connect, eventually, new_id, raw_call};

const CALLS: usize = 200;

/// Starts a service that requires tokens and logs in JSON.
fn spawn(app: &App, arguments: &[&str]) -> Server {
    let url = app.schema.url();
    let usual = ["--auth=tokens", "--log-format=json", "--database-url", &url];
    Server::spawn(&[&usual, arguments].concat())
}

/// Returns the lines that `is_meant` selects, once they stand for [`CALLS`] calls.
async fn lines(server: &Server, is_meant: impl Fn(&Value) -> bool) -> Vec<Value> {
    eventually("all calls are logged", async || {
        let log = server.log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines.filter(|line| is_meant(line)).collect();
        let counts = lines
            .iter()
            .map(|line| line["repeated"].as_u64().unwrap_or(1));
        (counts.sum::<u64>() == CALLS as u64).then_some(lines)
    })
    .await
}

/// Gets a workflow that does not exist, [`CALLS`] times. Returns the code of the failures.
async fn get_unknown(client: &Client, namespace: &str) -> Code {
    let calls = (0..CALLS).map(|_| async {
        let request = GetWorkflowRequest {
            namespace: namespace.into(),
            key: Some(Key::Id(new_id())),
            include_stamps: false,
        };
        let failed = client.workflows().get_workflow(request).await;
        failed.unwrap_err().code()
    });
    let codes = join_all(calls).await;
    assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
    codes[0]
}

#[tokio::test]
async fn failures_of_one_caller_are_few_lines_that_name_the_caller() {
    let app = App::start().await;
    let server = spawn(&app, &[]);
    let channel = server.serving().await;
    let tokens = [
        app.issue(Role::Reader, &["team-a"]).await,
        app.issue(Role::Reader, &["team-b"]).await,
    ];
    for (token, namespace) in tokens.iter().zip(["team-a", "team-b"]) {
        let code = get_unknown(&token.client(&channel), namespace).await;
        assert_eq!(code, Code::NotFound);
    }
    for (token, namespace) in tokens.iter().zip(["team-a", "team-b"]) {
        let is_theirs = |line: &Value| line["token_id"] == token.id.as_str();
        let lines = lines(&server, is_theirs).await;
        assert!(lines.len() < 20, "{lines:#?}");
        for line in lines {
            assert_eq!(line["target"], "bridgebook::call");
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["rpc"], "/bridgebook.v1.WorkflowService/GetWorkflow");
            assert_eq!(line["namespace"], namespace);
            assert_eq!(line["reason"], "WORKFLOW_NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn rejected_calls_are_few_lines_that_name_their_namespace() {
    let app = App::start().await;
    let server = spawn(&app, &[]);
    let channel = server.serving().await;
    let reader = app.issue(Role::Reader, &["team-a"]).await;
    let client = reader.client(&channel);
    assert_eq!(get_unknown(&client, "team-b").await, Code::PermissionDenied);
    let lines = lines(&server, |line| line["target"] == "bridgebook::audit").await;
    assert!(lines.len() < 20, "{lines:#?}");
    for line in lines {
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["token_id"], reader.id.as_str());
        assert_eq!(line["namespace"], "team-b");
        assert_eq!(line["reason"], "NAMESPACE_DENIED");
    }
}

#[tokio::test]
async fn calls_without_a_credential_are_few_lines_however_they_differ() {
    let app = App::start().await;
    let server = spawn(&app, &[]);
    server.serving().await;
    for number in 0..CALLS {
        let channel = connect(server.address);
        let rpc = Rpc::ALL[number % Rpc::ALL.len()].path();
        let refused = raw_call(&channel, rpc.trim_start_matches('/'), Vec::new()).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    let lines = lines(&server, |line| line["target"] == "bridgebook::audit").await;
    assert!(lines.len() < CALLS / 2, "{lines:#?}");
    let has_rest = |line: &Value| line["rpc"].is_null() && line["reason"] == "CREDENTIAL_MISSING";
    assert!(lines.iter().any(has_rest), "{lines:#?}");
}

#[tokio::test]
async fn calls_without_a_credential_from_many_addresses_are_few_lines() {
    let app = App::start().await;
    let server = spawn(&app, &[]);
    server.serving().await;
    let wires = (0..CALLS).map(|number| {
        let host = u8::try_from(number + 2).unwrap();
        Wire::connect_from([127, 0, 1, host], server.address, ANY_WINDOW)
    });
    let calls = join_all(wires).await.into_iter().map(|wire| async move {
        let request = GetWorkflowRequest::default();
        let rpc = "bridgebook.v1.WorkflowService/GetWorkflow";
        let answer = wire.send(rpc, &request).await.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "16");
    });
    join_all(calls).await;
    let lines = lines(&server, |line| line["target"] == "bridgebook::audit").await;
    assert!(lines.len() < CALLS / 2, "{lines:#?}");
    let rest = lines.iter().filter(|line| line["peer"].is_null());
    let addresses = rest.filter_map(|line| {
        assert_eq!(line["reason"], "CREDENTIAL_MISSING");
        let addresses = line["addresses"].as_u64();
        assert_eq!(addresses, line["repeated"].as_u64(), "each called once");
        addresses
    });
    assert!(addresses.sum::<u64>() > CALLS as u64 / 2, "{lines:#?}");
}

/// AdminService is audited call by call, but not the calls that are none of an administrator.
#[tokio::test]
async fn calls_of_admin_service_without_a_credential_are_few_lines() {
    let app = App::start().await;
    let server = spawn(&app, &[]);
    server.serving().await;
    let wire = Wire::connect(server.address, ANY_WINDOW).await;
    for _ in 0..CALLS {
        let mut head = wire.head("bridgebook.v1.AdminService/ListTokens");
        let soon = "soon".parse().unwrap();
        head.headers_mut().insert("grpc-timeout", soon);
        let answer = wire.send_with(head, &HealthCheckRequest::default()).await;
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], "3");
    }
    let lines = lines(&server, |line| line["target"] == "bridgebook::audit").await;
    assert!(lines.len() < 20, "{lines:#?}");
}

#[tokio::test]
async fn internal_errors_with_one_cause_are_few_lines() {
    let app = App::start().await;
    let server = spawn(&app, &[]).expect_errors();
    let channel = server.serving().await;
    let reader = app.issue(Role::Reader, &["team-a"]).await;
    let mut connection = app.schema.connect().await;
    let rename = "ALTER TABLE workflow_executions RENAME TO renamed";
    connection.batch_execute(rename).await.unwrap();
    let client = reader.client(&channel);
    assert_eq!(get_unknown(&client, "team-a").await, Code::Internal);
    let lines = lines(&server, |line| line["code"] == "Internal").await;
    assert!(lines.len() < 20, "{lines:#?}");
    for line in lines {
        assert_eq!(line["level"], "ERROR");
        assert!(line["cause"].as_str().unwrap().contains("does not exist"));
    }
}

/// Starts [`CALLS`] workflows. Returns the codes.
async fn start_workflows(client: &Client) -> Vec<Code> {
    let calls = (0..CALLS).map(|_| async {
        let request = StartWorkflowRequest {
            namespace: "team-a".into(),
            correlation_id: new_id(),
            workflow_type: "test".into(),
            ..StartWorkflowRequest::default()
        };
        let outcome = client.workflows().start_workflow(request).await;
        outcome.err().map_or(Code::Ok, |failed| failed.code())
    });
    join_all(calls).await
}

#[tokio::test]
async fn slow_calls_of_one_rpc_are_few_lines() {
    let app = App::start().await;
    let server = spawn(&app, &["--slow-call=20"]);
    let channel = server.serving().await;
    let writer = app.issue(Role::Writer, &["team-a"]).await;
    let mut connection = app.schema.connect().await;
    let slow = "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(0.05);
            RETURN NULL;
        END $$;
        CREATE TRIGGER is_slow BEFORE INSERT ON workflow_executions
            FOR EACH STATEMENT EXECUTE FUNCTION be_slow()";
    connection.batch_execute(slow).await.unwrap();
    let codes = start_workflows(&writer.client(&channel)).await;
    assert_eq!(codes, [Code::Ok; CALLS]);
    let rpc = "/bridgebook.v1.WorkflowService/StartWorkflow";
    let lines = lines(&server, |line| line["rpc"] == rpc).await;
    assert!(lines.len() < 20, "{lines:#?}");
    for line in lines {
        assert_eq!(line["level"], "WARN");
        assert!(line["message"].as_str().unwrap().starts_with("slow call"));
    }
}

#[tokio::test]
async fn calls_that_wait_for_a_lock_are_few_lines_with_the_cause() {
    let app = App::start().await;
    let server = spawn(&app, &[]);
    let channel = server.serving().await;
    let writer = app.issue(Role::Writer, &["team-a"]).await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let codes = start_workflows(&writer.client(&channel)).await;
    assert_eq!(codes, [Code::Aborted; CALLS]);
    let lines = lines(&server, |line| line["code"] == "Aborted").await;
    assert!(lines.len() < 20, "{lines:#?}");
    for line in lines {
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["reason"], "CONTENDED");
        assert!(line["cause"].as_str().unwrap().contains("lock timeout"));
    }
}
