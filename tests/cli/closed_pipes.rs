//! Commands whose output nothing reads, as in `bridgebook token list | head -0`.

use std::process::{Command, ExitStatus, Stdio};

use crate::support::{App, bridgebook, stderr};

/// Returns the writing end of a pipe that nothing reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn commands(app: &App) -> Vec<Command> {
    let url = ["--database-url", &app.schema.url()];
    let address = app.address.to_string();
    let with = |arguments: &[&str], more: &[&str]| {
        let mut command = bridgebook();
        command.args(arguments).args(more);
        command
    };
    vec![
        with(&["migrate", "status"], &url),
        with(&["migrate", "up"], &url),
        with(&["token", "create", "--name", "x", "--role", "admin"], &url),
        with(&["token", "list"], &url),
        with(&["prune"], &url),
        with(&["prune", "--dry-run"], &url),
        with(
            &["fsm", "show", "workflow", "--namespace", "x"],
            &["--address", &address],
        ),
        with(&["health"], &[&address]),
    ]
}

/// A shell reports 141 for a program that SIGPIPE has ended.
const CLOSED_PIPE: Option<i32> = Some(141);

#[tokio::test(flavor = "multi_thread")]
async fn a_command_into_a_closed_pipe_ends_quietly() {
    let app = App::start().await;
    // One token to list.
    let mut create = bridgebook();
    create.args(["token", "create", "--name", "x", "--role", "admin"]);
    create.args(["--database-url", &app.schema.url()]);
    assert!(create.output().unwrap().status.success());
    for mut command in commands(&app) {
        let output = command
            .stdout(closed())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), CLOSED_PIPE, "{command:?}");
        let text = stderr(&output);
        assert!(
            !text.contains("output") && !text.contains("panicked"),
            "{command:?} {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_credential_cannot_be_written_is_revoked() {
    let app = App::start().await;
    let token = |arguments: &[&str]| {
        let mut command = bridgebook();
        command.arg("token").args(arguments);
        command.args(["--database-url", &app.schema.url()]);
        command
    };
    let mut create = token(&["create", "--name", "x", "--role", "admin"]);
    let output = create.stdout(closed()).stderr(Stdio::piped()).output();
    let text = stderr(&output.unwrap());
    assert!(text.contains("revoked, because"), "{text}");
    let listed = |arguments| token(arguments).output().unwrap().stdout;
    assert!(listed(&["list", "--active-only"]).is_empty());
    assert!(!listed(&["list"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_error_changes_no_exit_status() {
    let app = App::start().await;
    let status = |command: &mut Command| -> ExitStatus {
        let silent = command.stdout(Stdio::null()).stderr(closed());
        silent.status().unwrap()
    };
    for mut command in commands(&app) {
        assert!(status(&mut command).success(), "{command:?}");
    }
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["serve", "--wat"], 64),
        (&["serve", "--listen=x"], 64),
        (&["token", "list", "--log", "x=y=z"], 64),
        (
            &[
                "token",
                "list",
                "--database-url",
                "postgres://a@127.0.0.1:1/b",
            ],
            1,
        ),
        (&["serve", "--listen=192.0.2.1:1", "--insecure"], 1),
    ] {
        let code_of = status(bridgebook().args(arguments)).code();
        assert_eq!(code_of, Some(code), "{arguments:?}");
    }
}
