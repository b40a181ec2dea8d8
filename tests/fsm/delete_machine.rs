use bridgebook::proto::v1::DeleteMachineRequest;
use tonic::{Code, Status};

use super::{client, machine, new_order, order_machine, put, record, transition};
use crate::support::{App, Failure, Tenant, failure};

async fn delete(tenant: &Tenant, allow_missing: bool) -> Result<bool, Status> {
    let request = DeleteMachineRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        allow_missing,
    };
    let answer = client(tenant).delete_machine(request).await;
    answer.map(|answer| answer.into_inner().deleted)
}

#[tokio::test]
async fn without_its_machine_an_entity_can_make_any_move() {
    let (_app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let order = new_order(&tenant).await;
    let odd = transition(&order, "teleport", "SHIPPED");
    assert_eq!(
        failure(record(&tenant, odd.clone()).await),
        Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED")
    );
    assert!(delete(&tenant, false).await.unwrap());
    record(&tenant, odd).await.unwrap();
}

/// Puts the machine for orders, or its other definition without moves from "PAID".
async fn put_expecting(tenant: &Tenant, is_other: bool, version: i32) -> Result<i32, Status> {
    let mut request = order_machine(tenant);
    if is_other {
        request = machine(tenant, "NEW", &["PAID"], &[("NEW", "pay", "PAID")]);
    }
    request.expected_version = Some(version);
    let answer = put(tenant, request).await?;
    Ok(answer.machine.unwrap().version)
}

#[tokio::test]
async fn an_outdated_expected_version_does_not_fit_the_machine_after_a_deleted_one() {
    let (_app, tenant) = App::with_tenant().await;
    assert_eq!(put_expecting(&tenant, false, 0).await.unwrap(), 1);
    assert!(delete(&tenant, false).await.unwrap());
    assert_eq!(put_expecting(&tenant, false, 0).await.unwrap(), 2);
    let outdated = failure(put_expecting(&tenant, true, 1).await);
    assert_eq!(outdated, Failure::new(Code::Aborted, "VERSION_CHANGED"));
    assert_eq!(put_expecting(&tenant, true, 2).await.unwrap(), 3);
    // A delete without a machine forgets nothing, and neither does a second delete.
    assert!(delete(&tenant, false).await.unwrap());
    assert!(!delete(&tenant, true).await.unwrap());
    let outdated = failure(put_expecting(&tenant, true, 3).await);
    assert_eq!(outdated, Failure::new(Code::Aborted, "VERSION_CHANGED"));
    assert_eq!(put_expecting(&tenant, true, 0).await.unwrap(), 4);
}

#[tokio::test]
async fn a_missing_machine_is_not_found_unless_allow_missing() {
    let (app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let stranger = app.tenant();
    let no_machine = Failure::new(Code::NotFound, "MACHINE_NOT_FOUND");
    assert_eq!(failure(delete(&stranger, false).await), no_machine);
    assert!(!delete(&stranger, true).await.unwrap());
    assert!(delete(&tenant, true).await.unwrap());
}

#[tokio::test]
async fn built_in_machines_cannot_be_deleted() {
    let (_app, tenant) = App::with_tenant().await;
    for entity_type in ["workflow", "node", ""] {
        let request = DeleteMachineRequest {
            namespace: tenant.namespace.clone(),
            entity_type: entity_type.into(),
            allow_missing: true,
        };
        let failed = failure(client(&tenant).delete_machine(request).await);
        assert_eq!(failed, Failure::invalid(&["entity_type"]));
    }
}
