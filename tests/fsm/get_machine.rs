use bridgebook::proto::v1::{GetMachineRequest, GetMachineResponse};
use tonic::{Code, Status};

use super::{client, order_machine, put};
use crate::support::{App, Failure, Tenant, failure};

async fn get(
    tenant: &Tenant,
    entity_type: &str,
    version: i32,
) -> Result<GetMachineResponse, Status> {
    let request = GetMachineRequest {
        namespace: tenant.namespace.clone(),
        entity_type: entity_type.into(),
        version,
    };
    let answer = client(tenant).get_machine(request).await;
    answer.map(tonic::Response::into_inner)
}

fn no_machine() -> Failure {
    Failure::new(Code::NotFound, "MACHINE_NOT_FOUND")
}

#[tokio::test]
async fn reads_the_current_version_and_older_ones() {
    let (_app, tenant) = App::with_tenant().await;
    let mut smaller = order_machine(&tenant);
    smaller.moves.pop();
    put(&tenant, smaller).await.unwrap();
    let second = put(&tenant, order_machine(&tenant))
        .await
        .unwrap()
        .machine
        .unwrap();
    let current = get(&tenant, "order", 0).await.unwrap();
    assert_eq!(current.machine.unwrap(), second);
    let first = get(&tenant, "order", 1).await.unwrap().machine.unwrap();
    assert_eq!((first.version, first.moves.len()), (1, 3));
    assert_eq!(failure(get(&tenant, "order", 3).await), no_machine());
    assert_eq!(failure(get(&tenant, "parcel", 0).await), no_machine());
}

#[tokio::test]
async fn a_machine_is_drawn_as_a_mermaid_diagram() {
    let (_app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let drawn = get(&tenant, "order", 0).await.unwrap().mermaid;
    let lines: Vec<_> = drawn.lines().map(str::trim).collect();
    assert_eq!(lines[0], "stateDiagram-v2");
    for line in [
        "state \"NEW\" as s1",
        "[*] --> s1",
        "s1 --> s2 : pay",
        "s3 --> [*]",
    ] {
        assert!(lines.contains(&line), "{drawn}");
    }
}

#[tokio::test]
async fn the_lifecycle_of_workflows_is_built_in() {
    let (_app, tenant) = App::with_tenant().await;
    let answer = get(&tenant, "workflow", 0).await.unwrap();
    let machine = answer.machine.unwrap();
    assert_eq!(
        (machine.version, machine.initial_state.as_str()),
        (0, "PENDING")
    );
    assert_eq!(machine.terminal_states, ["COMPLETED", "CANCELLED"]);
    assert_eq!(machine.moves.len(), 7);
    assert!(machine.created_at.is_none());
    assert!(answer.mermaid.contains("s2 --> s4 : retry"));
    assert_eq!(failure(get(&tenant, "workflow", 1).await), no_machine());
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    for (entity_type, version, field) in [
        ("", 0, "entity_type"),
        ("a\0", 0, "entity_type"),
        ("order", -1, "version"),
    ] {
        let failed = failure(get(&tenant, entity_type, version).await);
        assert_eq!(failed, Failure::invalid(&[field]));
    }
}
