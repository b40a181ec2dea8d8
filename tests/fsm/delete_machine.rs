use bridgebook::proto::v1::{DeleteMachineRequest, PutMachineRequest};
use tonic::{Code, Status};

use super::{client, new_order, order_machine, put, record, transition};
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
    // All versions are deleted, so the next one is version 1.
    let request = PutMachineRequest {
        allow_stranded: true,
        ..order_machine(&tenant)
    };
    assert_eq!(
        put(&tenant, request)
            .await
            .unwrap()
            .machine
            .unwrap()
            .version,
        1
    );
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
