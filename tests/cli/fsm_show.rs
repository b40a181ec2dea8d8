//! `bridgebook fsm show`.

use std::process::Output;

use crate::{
    fsm::{order_machine, put},
    support::{App, Tenant, bridgebook, stderr},
};

async fn show(app: &App, tenant: &Tenant, arguments: &[&str]) -> Output {
    let mut command = bridgebook();
    command
        .args(["fsm", "show", "--namespace", &tenant.namespace])
        .args(["--address", &app.address.to_string()])
        .args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_printed_as_a_diagram() {
    let (app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let mut smaller = order_machine(&tenant);
    smaller.moves.pop();
    put(&tenant, smaller).await.unwrap();
    for (arguments, has_it) in [
        (vec!["order"], false),
        (vec!["order", "--version", "1"], true),
    ] {
        let output = show(&app, &tenant, &arguments).await;
        assert!(output.status.success(), "{}", stderr(&output));
        let drawn = String::from_utf8(output.stdout).unwrap();
        assert!(drawn.starts_with("stateDiagram-v2\n"), "{drawn}");
        assert_eq!(drawn.contains("s2 --> s0 : cancel"), has_it);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_printed_and_set_the_exit_status() {
    let (app, tenant) = App::with_tenant().await;
    let output = show(&app, &tenant, &["parcel"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("machine parcel not found in namespace"));
    let output = show(&app, &tenant, &[]).await;
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn an_address_without_a_host_or_a_port_is_an_invalid_argument() {
    let show = |address| {
        let arguments = [
            "fsm",
            "show",
            "order",
            "--namespace=a",
            "--address",
            address,
        ];
        bridgebook().args(arguments).output().unwrap()
    };
    for address in [
        "foo",
        "foo:",
        ":50051",
        "foo:0",
        "foo:99999",
        "http://foo",
        "a b:50051",
        "",
    ] {
        let output = show(address);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{address}: {text}");
        let quoted = format!(
            "--address: expected an address with a port, like localhost:50051, got {address:?}"
        );
        assert!(text.contains(&quoted), "{text}");
    }
    for address in [
        "127.0.0.1:1",
        "http://127.0.0.1:1",
        "http://127.0.0.1:1/",
        "[::1]:1",
    ] {
        assert_eq!(show(address).status.code(), Some(1), "{address}");
    }
}
