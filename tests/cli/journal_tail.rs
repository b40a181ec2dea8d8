//! `bridgebook journal tail`.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Output, Stdio},
};

use bridgebook::{
    domain::role::Role,
    proto::v1::{FsmTransition, NewTransition, WatchTransitionsRequest},
};
use diesel_async::SimpleAsyncConnection;
use serde_json::{Value, json};

use crate::{
    fsm::{client, history, new_order, record, transition},
    support::{
        App, Server, TempDir, bridgebook, document, eventually, new_id, send_signal, stderr,
        temp_dir,
    },
};

fn command(address: &str, namespace: &str, arguments: &[&str]) -> Command {
    let mut command = bridgebook();
    command.args(["journal", "tail", namespace, "--address", address]);
    command.args(arguments);
    command
}

async fn output(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().expect("it runs")
}

/// Runs a command that ends by itself. Returns the lines that it prints.
async fn lines(app: &App, namespace: &str, arguments: &[&str]) -> Vec<String> {
    let output = output(command(&app.address.to_string(), namespace, arguments)).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

/// A command that runs until the value is dropped.
struct Tail {
    child: Child,
    dir: TempDir,
}

impl Tail {
    fn start(mut command: Command) -> Tail {
        let dir = temp_dir();
        fs::create_dir_all(&dir.0).unwrap();
        let file = |name| File::create(dir.0.join(name)).unwrap();
        let command = command.stdout(file("out")).stderr(file("err"));
        let child = command.spawn().unwrap();
        Tail { child, dir }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.0.join(name)).unwrap()
    }

    /// Waits until the command has printed a line of standard error with this text.
    async fn says(&self, text: &str) {
        let says = async || self.read("err").contains(text).then_some(());
        eventually(text, says).await;
    }

    /// Waits for a number of rows. Returns their ids.
    async fn ids(&self, count: usize) -> Vec<String> {
        eventually("the rows", async || {
            let text = self.read("out");
            let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let rows: Vec<Value> = rows.collect();
            (rows.len() >= count && text.ends_with('\n')).then(|| {
                let ids = rows
                    .iter()
                    .map(|row| row["id"].as_str().unwrap().to_owned());
                ids.collect()
            })
        })
        .await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ids(rows: &[FsmTransition]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_and_text_is_for_people() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let other = new_order(&tenant).await;
    let paid = record(
        &tenant,
        NewTransition {
            transition_data: document(json!({"by": "hand"})),
            ..transition(&order, "pay", "PAID")
        },
    );
    paid.await.unwrap();
    let workflow = tenant.start().await;
    for (filter, value, entity, count) in [
        ("--entity-id", &*order, &order, 2),
        ("--event", "pay", &order, 1),
        ("--to-state", "PAID", &order, 1),
        ("--entity-type", "workflow", &workflow.id, 1),
    ] {
        let limit = count.to_string();
        let arguments = ["--from-start", filter, value, "--limit", &limit];
        let lines = lines(&app, &tenant.namespace, &arguments).await;
        assert_eq!(lines.len(), count, "{filter}");
        assert!(lines.iter().all(|it| it.contains(entity)), "{lines:?}");
    }
    let arguments = ["--from-start", "--limit=3"];
    let all = lines(&app, &tenant.namespace, &arguments).await;
    let expected = [
        format!("  order/{order}  - → NEW  create"),
        format!("  order/{other}  - → NEW  create"),
        format!("  order/{order}  NEW → PAID  pay  {{\"by\":\"hand\"}}"),
    ];
    for (line, expected) in all.iter().zip(&expected) {
        assert!(line.ends_with(expected), "{line}");
    }
    // A name with the prefix of an enum matches nothing.
    let prefixed = ["--to-state", "WORKFLOW_STATE_COMPLETED"];
    let tail = Tail::start(command(
        &app.address.to_string(),
        &tenant.namespace,
        &prefixed,
    ));
    tail.says("--to-state COMPLETED, not WORKFLOW_STATE_COMPLETED")
        .await;
    let family = format!("{}*", tenant.namespace);
    let of_family = lines(&app, &family, &arguments).await;
    assert!(of_family[0].contains(&format!("Z  {}  order/", tenant.namespace)));
    let colored = [&arguments[..], &["--color=always"]].concat();
    let colored = lines(&app, &tenant.namespace, &colored).await;
    assert!(colored[0].contains("\x1b["), "{colored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_a_line_as_grpcurl_prints_it() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let paid = NewTransition {
        transition_data: document(json!({"lines": [1, {"text": "a\nb"}]})),
        ..transition(&order, "pay", "PAID")
    };
    record(&tenant, paid).await.unwrap();
    let rows = history(&tenant, &order).await;
    let arguments = ["--from-start", "--limit=2", "--output=json"];
    let printed = lines(&app, &tenant.namespace, &arguments).await;
    let parsed = printed.iter().map(|it| serde_json::from_str(it).unwrap());
    let parsed: Vec<Value> = parsed.collect();
    assert_eq!(parsed[0].get("fromState"), None);
    let row = &rows[1];
    let created_at = parsed[1]["createdAt"].clone();
    assert_eq!(
        parsed[1],
        json!({
            "id": row.id, "namespace": tenant.namespace, "entityId": order, "entityType": "order",
            "fromState": "NEW", "toState": "PAID", "transitionEvent": "pay",
            "transitionData": {"lines": [1, {"text": "a\nb"}]},
            "createdAt": created_at, "position": row.position,
        })
    );
    // A position of the output is where another one begins.
    let after = ["--after", &rows[0].position, "--limit=1", "--output=json"];
    assert_eq!(lines(&app, &tenant.namespace, &after).await, printed[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_loses_no_row_and_repeats_none() {
    // A replica that goes on, and the service that is followed.
    let app = App::start().await;
    let tenant = app.tenant();
    let url = app.schema.url();
    let arguments = ["--database-url", &url];
    let mut server = Server::spawn(&arguments);
    server.serving().await;
    let address = server.address.to_string();
    let follow = ["--from-start", "--output=json"];
    let order = new_order(&tenant).await;
    let tail = Tail::start(command(&address, &tenant.namespace, &follow));
    tail.ids(1).await;
    let step = async |state: &str| {
        record(&tenant, transition(&order, "step", state))
            .await
            .unwrap();
    };
    for round in 0..2 {
        step(&format!("BEFORE{round}")).await;
        match round {
            // Without and with a last word to the client.
            0 => server.kill(),
            _ => drop(server.terminate()),
        }
        tail.says("interrupted, watching again soon").await;
        step(&format!("WITHOUT{round}")).await;
        server = Server::spawn_on(server.address, &arguments);
        server.serving().await;
        step(&format!("AFTER{round}")).await;
        tail.ids(1 + 3 * (round + 1)).await;
    }
    let rows = history(&tenant, &order).await;
    assert_eq!(tail.ids(7).await, ids(&rows));
    let told = tail.read("err");
    assert_eq!(
        told.matches("watching again; nothing was missed").count(),
        2,
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_before_the_first_stream_are_missed_unless_it_has_a_begin() {
    let app = App::start_with(|config| config.limits.watches = 5).await;
    let tenant = app.tenant();
    // As many streams as one address may have, so that no other one begins.
    let mut others = Vec::new();
    for _ in 0..4 {
        let request = WatchTransitionsRequest {
            namespace: tenant.namespace.clone(),
            ..WatchTransitionsRequest::default()
        };
        others.push(client(&tenant).watch_transitions(request).await.unwrap());
    }
    let address = app.address.to_string();
    let start = |arguments: &[&str]| Tail::start(command(&address, &tenant.namespace, arguments));
    let from_now = start(&["--output=json"]);
    let from_start = start(&["--output=json", "--from-start"]);
    for tail in [&from_now, &from_start] {
        tail.says("interrupted, watching again soon").await;
    }
    let order = new_order(&tenant).await;
    drop(others);
    from_now.says("watching from now on").await;
    from_start.says("watching again; nothing was missed").await;
    record(&tenant, transition(&order, "pay", "PAID"))
        .await
        .unwrap();
    let rows = ids(&history(&tenant, &order).await);
    assert_eq!(from_start.ids(2).await, rows);
    assert_eq!(from_now.ids(1).await, rows[1..]);
    let told = from_now.read("err");
    assert!(!told.contains("nothing was missed"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_are_an_error_that_says_what_to_do() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    for state in ["A", "B"] {
        record(&tenant, transition(&order, "step", state))
            .await
            .unwrap();
    }
    let rows = history(&tenant, &order).await;
    // As retention does.
    let prune = format!(
        "WITH removed AS (
            DELETE FROM fsm_transitions WHERE id IN ('{}', '{}') RETURNING namespace, xid, seq, id)
         INSERT INTO journal_floors (namespace, xid, seq, transition_id)
         SELECT * FROM removed ORDER BY xid DESC, seq DESC LIMIT 1",
        rows[0].id, rows[1].id
    );
    let mut database = app.schema.connect().await;
    database.batch_execute(&prune).await.unwrap();
    let address = app.address.to_string();
    let after = ["--after", &rows[0].position];
    let gone = output(command(&address, &tenant.namespace, &after)).await;
    assert_eq!(gone.status.code(), Some(1));
    let advice = format!("--after {}", rows[1].position);
    assert!(stderr(&gone).contains(&advice), "{}", stderr(&gone));
    let after = ["--after", &rows[1].position, "--limit=1", "--output=json"];
    let rest = lines(&app, &tenant.namespace, &after).await;
    assert!(rest[0].contains(&rows[2].id), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_and_ctrl_c_end_it_quietly() {
    let (app, tenant) = App::with_tenant().await;
    new_order(&tenant).await;
    let address = app.address.to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut closed = command(&address, &tenant.namespace, &["--from-start"]);
    closed.stdout(writer).stderr(Stdio::piped());
    let closed = tokio::task::spawn_blocking(move || closed.spawn().unwrap().wait_with_output());
    let closed = closed.await.unwrap().unwrap();
    assert_eq!((closed.status.code(), &*stderr(&closed)), (Some(141), ""));

    let follow = ["--from-start", "--output=json"];
    let mut tail = Tail::start(command(&address, &tenant.namespace, &follow));
    tail.ids(1).await;
    send_signal("INT", tail.child.id());
    assert_eq!(tail.child.wait().unwrap().signal(), Some(2));
    assert_eq!(tail.read("err"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_set_the_exit_status() {
    let app = App::guarded().await;
    let reader = app.issue(Role::Reader, &["own"]).await;
    let address = app.address.to_string();
    let run = async |namespace: &str, arguments: &[&str]| {
        let mut command = command(&address, namespace, arguments);
        command.env("BRIDGEBOOK_TOKEN", &reader.credential);
        let output = output(command).await;
        (output.status.code(), stderr(&output))
    };
    let bridge_id = new_id();
    for (namespace, arguments, status, part) in [
        ("other", &[][..], 1, "NAMESPACE_DENIED"),
        ("own", &["--after", "x"], 1, "after"),
        (
            "own",
            &["--after-bridge", &bridge_id],
            1,
            "BRIDGE_NOT_FOUND",
        ),
        ("own", &["--after", "x", "--from-start"], 64, "--from-start"),
        ("own", &["--limit=0"], 64, "--limit"),
        ("own", &["--output=xml"], 64, "json"),
    ] {
        let (code, text) = run(namespace, arguments).await;
        assert_eq!(code, Some(status), "{arguments:?} {text}");
        assert!(text.contains(part), "{part} in {text}");
    }
}
