//! `bridgebook quota`.

use std::{num::NonZeroU32, process::Output};

use bridgebook::domain::role::Role;
use diesel_async::SimpleAsyncConnection;

use crate::support::{App, Issued, Server, bridgebook, eventually, new_id, stderr};

async fn quota(address: &str, token: Option<&Issued>, arguments: &[&str]) -> Output {
    let mut command = bridgebook();
    command.arg("quota").args(arguments);
    command.args(["--address", address]);
    if let Some(token) = token {
        command.env("BRIDGEBOOK_TOKEN", &token.credential);
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().expect("it runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_set_listed_and_deleted() {
    let app = App::start_with(|config| {
        config.limits.quotas.namespace.calls_per_second = NonZeroU32::new(70);
    });
    let app = app.await;
    let (address, token) = (
        app.address.to_string(),
        app.issue(Role::Reader, &["a"]).await,
    );
    let run = async |arguments: &[&str]| stdout(&quota(&address, None, arguments).await);
    let limits = [
        "--calls-per-second=200",
        "--items-per-second=0",
        "--weight=3",
    ];
    let set = run(&[&["set", "--namespace", "team-a"], &limits[..]].concat()).await;
    assert_eq!(
        set,
        "namespace team-a  calls per second 200  items per second unlimited  \
         calls in progress default  weight 3\n"
    );
    let of_token = ["set", "--token-id", &token.id, "--calls-in-progress=9"];
    let of_token = run(&of_token).await;
    assert_eq!(
        of_token,
        format!(
            "token {}  calls per second default  items per second default  calls in progress 9\n",
            token.id
        )
    );
    let defaults = "default of namespaces  calls per second 70  items per second unlimited  \
                    calls in progress unlimited\n\
                    default of tokens  calls per second unlimited  items per second unlimited  \
                    calls in progress unlimited\n";
    let listed = run(&["list"]).await;
    assert_eq!(listed, format!("{defaults}{set}{of_token}"));
    let delete = ["delete", "--namespace", "team-a"];
    assert_eq!(run(&delete).await, "deleted\n");
    assert_eq!(run(&delete).await, "there was no quota\n");
    assert_eq!(run(&["list"]).await, format!("{defaults}{of_token}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_quotas_are_listed_after_the_defaults() {
    let app = App::start().await;
    let mut database = app.schema.connect().await;
    let many = "INSERT INTO quotas (subject_kind, subject, calls_per_second)
                SELECT 'namespace', 'team-' || number, 1 FROM generate_series(1, 250) number";
    database.batch_execute(many).await.unwrap();
    let listed = quota(&app.address.to_string(), None, &["list"]).await;
    let lines = stdout(&listed);
    let defaults = lines.lines().filter(|line| line.starts_with("default"));
    assert_eq!((defaults.count(), lines.lines().count()), (2, 252));
}

/// The command needs the credential of an administrator, and the audit log names it.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_in_the_audit_log_with_the_token_of_the_operator() {
    let app = App::start().await;
    let url = app.schema.url();
    let server = Server::spawn(&["--auth", "tokens", "--database-url", &url]);
    server.serving().await;
    let address = server.address.to_string();
    let admin = app.issue(Role::Admin, &["*"]).await;
    let writer = app.issue(Role::Writer, &["team-a"]).await;
    let set = ["set", "--namespace", "team-a", "--calls-per-second", "71"];
    for (token, reason) in [
        (None, "credential"),
        (Some(&writer), "this call requires ROLE_ADMIN"),
    ] {
        let output = quota(&address, token, &set).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
    stdout(&quota(&address, Some(&admin), &set).await);
    let delete = ["delete", "--namespace", "team-a"];
    stdout(&quota(&address, Some(&admin), &delete).await);
    for parts in [
        ["SetQuota", "namespace=\"team-a\"", "calls_per_second=71"],
        ["DeleteQuota", "namespace=\"team-a\"", "code=Ok"],
    ] {
        eventually("the change is logged", async || {
            let log = server.log();
            let mut lines = log.lines().filter(|line| line.contains("admin call"));
            lines
                .any(|line| line.contains(&admin.id) && parts.iter().all(|it| line.contains(it)))
                .then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_arguments_are_named() {
    let unreachable = "127.0.0.1:1";
    for (arguments, part) in [
        (&["set", "--calls-per-second=1"][..], "--namespace"),
        (&["delete"], "--token-id"),
        (
            &[
                "set",
                "--namespace=a",
                "--token-id=b",
                "--calls-per-second=1",
            ],
            "--token-id",
        ),
        (&["set", "--namespace=a"], "--calls-per-second"),
        (&["set", "--namespace=a", "--weight=101"], "--weight"),
        (&["set", "--token-id=b", "--weight=1"], "--weight"),
        (
            &["set", "--namespace=a", "--items-per-second=-1"],
            "--items-per-second",
        ),
    ] {
        let output = quota(unreachable, None, arguments).await;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(part), "{part} in {text}");
    }
    let app = App::start().await;
    let address = app.address.to_string();
    for (arguments, part) in [
        (["--namespace", "team-*"], "namespace"),
        (["--token-id", "team-a"], "token_id"),
        (["--token-id", &new_id()], "TOKEN_NOT_FOUND"),
    ] {
        let arguments = [&["set", "--calls-per-second", "1"], &arguments[..]].concat();
        let output = quota(&address, None, &arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_not_sent_without_tls_to_another_machine() {
    let credential = format!("bb_{}_{}", "0".repeat(32), "0".repeat(64));
    // An address for documentation, which no machine has (RFC 5737).
    for address in [
        "192.0.2.1:50051",
        "bridgebook.example:50051",
        "[2001:db8::1]:50051",
    ] {
        let output = quota(address, None, &["list", "--token", &credential]).await;
        assert_eq!(output.status.code(), Some(64), "{address}");
        let text = stderr(&output);
        assert!(
            text.contains("--tls-ca") && !text.contains(&credential),
            "{text}"
        );
    }
    for address in ["localhost:1", "127.0.0.2:1", "[::1]:1"] {
        let output = quota(address, None, &["list", "--token", &credential]).await;
        assert_eq!(output.status.code(), Some(1), "{address}");
    }
}
