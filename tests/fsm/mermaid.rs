//! Diagrams of machines, as Mermaid's own parser reads them.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use bridgebook::proto::v1::{FsmMachine, FsmMove, GetMachineRequest, PutMachineRequest};
use serde_json::{Value, json};

use super::{client, order_machine, put};
use crate::support::{App, Tenant, root};

/// Reads a diagram with Mermaid, which is installed on the first call.
fn read(diagram: &str) -> Value {
    // Two setups at a time would disturb each other.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let tools = root().join("target/tools/mermaid");
    let turn = ONE_AT_A_TIME.lock();
    let setup = root().join("tests/fsm/mermaid/setup.sh");
    run(Command::new(setup).arg(&tools), "");
    drop(turn);
    let read = run(Command::new("node").arg(tools.join("read.mjs")), diagram);
    serde_json::from_str(&read).unwrap_or_else(|error| panic!("{error}: {read}"))
}

/// Runs a command with this input, and returns its output.
fn run(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

/// Stores a machine, and compares its diagram with it.
async fn assert_drawn(tenant: &Tenant, machine: PutMachineRequest) {
    let request = GetMachineRequest {
        namespace: machine.namespace.clone(),
        entity_type: machine.entity_type.clone(),
        version: 0,
    };
    put(tenant, machine).await.unwrap();
    let answer = client(tenant).get_machine(request).await.unwrap();
    let answer = answer.into_inner();
    let drawn = tokio::task::spawn_blocking(move || read(&answer.mermaid));
    assert_same(&drawn.await.unwrap(), &answer.machine.unwrap());
}

fn assert_same(drawn: &Value, machine: &FsmMachine) {
    assert_eq!(drawn["type"], "stateDiagram");
    assert_eq!(drawn["texts"], json!(["", ""]), "title and description");
    let mut labels = drawn["states"].as_object().unwrap().clone();
    // The ends of the diagram have no label.
    labels.remove("root_start");
    labels.remove("root_end");
    let label = |id: &Value| match labels.get(id.as_str().unwrap()) {
        Some(label) => label.clone(),
        None => json!(null),
    };
    let states = machine
        .moves
        .iter()
        .flat_map(|it| [&it.from_state, &it.to_state]);
    let states: BTreeSet<&str> = states
        .chain(&machine.terminal_states)
        .map(String::as_str)
        .collect();
    let drawn_states: BTreeSet<&str> = labels.values().map(|it| it.as_str().unwrap()).collect();
    assert_eq!((labels.len(), drawn_states), (states.len(), states));

    let mut expected = vec![json!([null, "", machine.initial_state])];
    let moves = machine.moves.iter();
    expected.extend(moves.map(|it| json!([it.from_state, it.transition_event, it.to_state])));
    let ends = machine.terminal_states.iter();
    expected.extend(ends.map(|state| json!([state, "", null])));
    let moves = drawn["moves"].as_array().unwrap().iter();
    let moves: Vec<Value> = moves
        .map(|it| json!([label(&it[0]), it[1], label(&it[2])]))
        .collect();
    assert_eq!(moves, expected);
}

/// Returns a machine with these names as states and as events.
fn star(tenant: &Tenant, names: &[String]) -> PutMachineRequest {
    let moves = names.iter().map(|name| FsmMove {
        from_state: names[0].clone(),
        transition_event: name.clone(),
        to_state: name.clone(),
    });
    PutMachineRequest {
        initial_state: names[0].clone(),
        terminal_states: names[1..].to_vec(),
        moves: moves.collect(),
        ..order_machine(tenant)
    }
}

#[tokio::test]
async fn mermaid_reads_the_diagram_of_a_machine() {
    let (_app, tenant) = App::with_tenant().await;
    assert_drawn(&tenant, order_machine(&tenant)).await;
}

#[tokio::test]
async fn no_name_is_syntax_in_a_diagram() {
    let (_app, tenant) = App::with_tenant().await;
    let words = [
        "accTitle",
        "accDescr",
        "accTitle: x",
        "stateDiagram",
        "stateDiagram-v2",
        "root_start",
        "root_end",
        "root",
        "s0",
        "s1",
        "end",
        "end note",
        "note",
        "note left of s0",
        "state",
        "state s0",
        "as",
        "class",
        "classDef",
        "click",
        "default",
        "direction",
        "direction TB",
        "fork",
        "join",
        "choice",
        "hide empty description",
        "href",
        "scale 350 width",
        "style",
    ];
    let lower = words.map(str::to_lowercase);
    let upper = words.map(str::to_uppercase);
    let hostile = [
        "a --> b",
        "[*]",
        "[*] --> s0",
        "<<fork>>",
        "<script>alert(1)</script>",
        "<b>x</b>",
        "\"",
        "a \"b\" as c",
        "%% x",
        "a %%{init: {}}%% b",
        "#",
        "#35;",
        "#quot;",
        "&amp;",
        "&#35;",
        ";",
        "a; b",
        "x:::y",
        "{",
        "}",
        "{ a --> b }",
        "--",
        "- a",
        "1. a",
        "# a",
        "> a",
        "*a*",
        "_a_",
        "__init__",
        "`a`",
        "[a](b)",
        "www.example.com",
        "https://example.com/?a=b#c",
        "a@b.example",
        "$$x$$",
        "\\n",
        "ﬂ°°35¶ß",
        "style a:#fff;",
        "classDef a:#fff;",
        "In Prüfung 👩\u{200d}💻",
        "در حال انجام",
        "e\u{301}",
        "a  b",
    ];
    let characters = ('!'..='~').flat_map(|it| [format!("{it}"), format!("{it}{it} {it}a{it}b")]);
    let names = words.map(str::to_owned).into_iter();
    let names = names
        .chain(lower)
        .chain(upper)
        .chain(hostile.map(str::to_owned));
    let names: BTreeSet<String> = names.chain(characters).collect();
    let names: Vec<String> = names.into_iter().collect();
    assert_drawn(&tenant, star(&tenant, &names)).await;
}
