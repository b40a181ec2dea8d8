//! `bridgebook token`.

use std::process::Output;

use bridgebook::{client::Client, proto::v1::ListWorkflowsRequest};
use tonic::Code;

use crate::support::{App, bridgebook, eventually, failure, stderr};

fn token(app: &App, arguments: &[&str]) -> Output {
    let mut command = bridgebook();
    command.arg("token").args(arguments);
    command.args(["--database-url", &app.schema.url()]);
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_token_is_created_listed_and_revoked() {
    let app = App::guarded().await;
    let arguments = ["create", "--name", "ci", "--role", "reader", "--days", "1"];
    let namespaces = ["--namespace", "team-a", "--namespace", "team-b-*"];
    let created = token(&app, &[&arguments[..], &namespaces[..]].concat());
    // Only the credential, for scripts.
    let credential = stdout(&created).trim().to_owned();
    let client = Client::with_token(app.channel.clone(), &credential).unwrap();
    let request = ListWorkflowsRequest {
        namespace: "team-b-1".into(),
        ..ListWorkflowsRequest::default()
    };
    let mut workflows = client.workflows();
    workflows.list_workflows(request.clone()).await.unwrap();

    let listed = stdout(&token(&app, &["list", "--active-only"]));
    assert!(
        listed.contains("READER") && listed.contains("team-a,team-b-*"),
        "{listed}"
    );
    assert!(
        !listed.contains(&credential) && listed.contains("expires"),
        "{listed}"
    );
    let id = listed.split_whitespace().next().unwrap();
    let revoked = stdout(&token(&app, &["revoke", id]));
    assert!(revoked.contains("revoked"), "{revoked}");
    assert_eq!(stdout(&token(&app, &["list", "--active-only"])), "");
    assert_eq!(stdout(&token(&app, &["list"])), revoked);
    let failed = eventually("it ends", || {
        let (mut workflows, request) = (workflows.clone(), request.clone());
        async move { workflows.list_workflows(request).await.err() }
    });
    assert_eq!(failure::<()>(Err(failed.await)).code, Code::Unauthenticated);
}

/// The database is unreachable, and so is not tried.
#[test]
fn invalid_arguments_are_named_before_the_database_is_used() {
    let create = [
        "token",
        "create",
        "--name=a",
        "--role=writer",
        "--namespace=**",
    ];
    let url = "--database-url=postgres://a@127.0.0.1:1/b";
    let output = bridgebook().args(create).arg(url).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    assert!(text.contains("--namespace"), "{text}");
}

#[tokio::test]
async fn all_invalid_arguments_are_named() {
    let app = App::start().await;
    let arguments = ["create", "--name", "", "--role", "writer"];
    let output = token(&app, &arguments);
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    assert!(
        text.contains("--name is required") && text.contains("--namespace is required"),
        "{text}"
    );
    let reserved = ["--namespace", "bridgebook.*", "--namespace", "**"];
    let arguments = ["create", "--name", "a", "--role", "writer"];
    let output = token(&app, &[&arguments[..], &reserved[..]].concat());
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    assert!(
        text.contains("--namespace must not start with") && text.contains("got \"**\""),
        "{text}"
    );
    let output = token(&app, &["revoke", "7"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("ID "), "{}", stderr(&output));
    let nobody = crate::support::new_id();
    let output = token(&app, &["revoke", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&nobody), "{}", stderr(&output));
}
