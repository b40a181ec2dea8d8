use bridgebook::proto::v1::{DeleteMachineRequest, GetEntityRequest};
use tonic::Code;

use super::{client, get, new_order, order_machine, put, record, transition};
use crate::support::{App, Failure, failure, new_id};

#[tokio::test]
async fn returns_the_state_and_the_allowed_moves() {
    let (_app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let order = new_order(&tenant).await;
    let created = get(&tenant, &order).await.unwrap();
    let paid = record(&tenant, transition(&order, "pay", ""))
        .await
        .unwrap();
    let answer = get(&tenant, &order).await.unwrap();
    let entity = answer.entity.unwrap();
    assert_eq!(Some(&entity), paid.entity.as_ref());
    assert_eq!(
        (entity.current_state.as_str(), entity.revision),
        ("PAID", 2)
    );
    assert_eq!(entity.state_since, paid.transition.unwrap().created_at);
    assert_eq!(entity.created_at, created.entity.unwrap().created_at);
    assert_eq!(answer.machine_version, 1);
    let moves: Vec<_> = answer
        .allowed_moves
        .iter()
        .map(|it| (it.transition_event.as_str(), it.to_state.as_str()))
        .collect();
    assert_eq!(moves, [("ship", "SHIPPED"), ("cancel", "CANCELLED")]);

    record(&tenant, transition(&order, "ship", ""))
        .await
        .unwrap();
    assert!(get(&tenant, &order).await.unwrap().allowed_moves.is_empty());

    let request = DeleteMachineRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        allow_missing: false,
    };
    client(&tenant).delete_machine(request).await.unwrap();
    assert_eq!(get(&tenant, &order).await.unwrap().machine_version, 0);
}

#[tokio::test]
async fn a_missing_or_foreign_entity_is_not_found() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let no_entity = Failure::new(Code::NotFound, "ENTITY_NOT_FOUND");
    assert_eq!(failure(get(&tenant, &new_id()).await), no_entity);
    assert_eq!(failure(get(&app.tenant(), &order).await), no_entity);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    for (entity_type, entity_id, field) in [
        ("", new_id(), "entity_type"),
        ("workflow", new_id(), "entity_type"),
        ("bridge", new_id(), "entity_type"),
        ("node", new_id(), "entity_type"),
        ("order", "7".into(), "entity_id"),
        ("order", String::new(), "entity_id"),
    ] {
        let request = GetEntityRequest {
            namespace: tenant.namespace.clone(),
            entity_type: entity_type.into(),
            entity_id,
        };
        let failed = failure(client(&tenant).get_entity(request).await);
        assert_eq!(failed, Failure::invalid(&[field]));
    }
}
