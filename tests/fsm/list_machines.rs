use bridgebook::proto::v1::{ListMachinesRequest, ListMachinesResponse, PutMachineRequest};

use super::{client, order_machine, put};
use crate::support::{App, Failure, Tenant, failure};

async fn list(tenant: &Tenant, size: i32, token: &str) -> ListMachinesResponse {
    let request = ListMachinesRequest {
        namespace: tenant.namespace.clone(),
        page_size: size,
        page_token: token.into(),
    };
    client(tenant)
        .list_machines(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn current_machines_are_listed_by_type_and_in_pages() {
    let (app, tenant) = App::with_tenant().await;
    let named = |entity_type: &str| PutMachineRequest {
        entity_type: entity_type.into(),
        ..order_machine(&tenant)
    };
    for entity_type in ["parcel", "order", "bridge"] {
        put(&tenant, named(entity_type)).await.unwrap();
    }
    let mut changed = named("order");
    changed.moves.pop();
    put(&tenant, changed).await.unwrap();
    let stranger = app.tenant();
    put(&stranger, order_machine(&stranger)).await.unwrap();

    let first = list(&tenant, 2, "").await;
    let second = list(&tenant, 2, &first.next_page_token).await;
    let machines = first.machines.iter().chain(&second.machines);
    let machines: Vec<_> = machines
        .map(|it| (it.entity_type.as_str(), it.version))
        .collect();
    assert_eq!(machines, [("bridge", 1), ("order", 2), ("parcel", 1)]);
    assert!(second.next_page_token.is_empty());
}

#[tokio::test]
async fn a_page_token_of_another_query_is_refused() {
    let (app, tenant) = App::with_tenant().await;
    for entity_type in ["order", "parcel"] {
        let request = PutMachineRequest {
            entity_type: entity_type.into(),
            ..order_machine(&tenant)
        };
        put(&tenant, request).await.unwrap();
    }
    let token = list(&tenant, 1, "").await.next_page_token;
    for (namespace, size, token, field) in [
        (app.tenant().namespace, 0, token.clone(), "page_token"),
        (tenant.namespace.clone(), 0, "x".into(), "page_token"),
        (tenant.namespace.clone(), -1, token, "page_size"),
    ] {
        let request = ListMachinesRequest {
            namespace,
            page_size: size,
            page_token: token,
        };
        let failed = failure(client(&tenant).list_machines(request).await);
        assert_eq!(failed, Failure::invalid(&[field]));
    }
}
