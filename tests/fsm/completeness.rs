//! What every RPC answers to another tenant.

use bridgebook::proto::v1;
use tonic::Code;

use super::{client, get, history, machine, new_order, order_machine, put, record, transition};
use crate::support::{App, Failure, assert_complete, failure};

#[tokio::test]
async fn another_tenants_rows_can_neither_be_seen_nor_changed() {
    let (app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let order = new_order(&tenant).await;
    let before = (
        get(&tenant, &order).await.unwrap(),
        history(&tenant, &order).await,
    );

    let own = app.tenant();
    let namespace = own.namespace.clone();
    let mut rpc = client(&own);
    let mut tried = Vec::new();
    let mut tries = |rpc: &'static str| tried.push(rpc);

    tries("GetMachine");
    let request = v1::GetMachineRequest {
        namespace: namespace.clone(),
        entity_type: "order".into(),
        version: 0,
    };
    let no_machine = Failure::new(Code::NotFound, "MACHINE_NOT_FOUND");
    assert_eq!(failure(rpc.get_machine(request).await), no_machine);
    tries("DeleteMachine");
    let request = v1::DeleteMachineRequest {
        namespace: namespace.clone(),
        entity_type: "order".into(),
        allow_missing: false,
    };
    assert_eq!(failure(rpc.delete_machine(request).await), no_machine);
    tries("ListMachines");
    let request = v1::ListMachinesRequest {
        namespace: namespace.clone(),
        ..Default::default()
    };
    assert!(
        rpc.list_machines(request)
            .await
            .unwrap()
            .into_inner()
            .machines
            .is_empty()
    );
    tries("GetEntity");
    let no_entity = Failure::new(Code::NotFound, "ENTITY_NOT_FOUND");
    assert_eq!(failure(get(&own, &order).await), no_entity);
    tries("ListEntities");
    let request = v1::ListEntitiesRequest {
        namespace: namespace.clone(),
        entity_type: "order".into(),
        ..Default::default()
    };
    assert!(
        rpc.list_entities(request)
            .await
            .unwrap()
            .into_inner()
            .entities
            .is_empty()
    );
    tries("ListTransitions");
    assert!(history(&own, &order).await.is_empty());
    tries("GetTransitionStats");
    let request = v1::GetTransitionStatsRequest {
        namespace: namespace.clone(),
        entity_type: "order".into(),
        ..Default::default()
    };
    assert!(
        rpc.get_transition_stats(request)
            .await
            .unwrap()
            .into_inner()
            .stats
            .is_empty()
    );

    // The same names are things of one's own.
    tries("PutMachine");
    let other = machine(
        &own,
        "ELSEWHERE",
        &[],
        &[("ELSEWHERE", "stay", "ELSEWHERE")],
    );
    assert!(put(&own, other).await.unwrap().created);
    tries("RecordTransition");
    record(&own, transition(&order, "create", "ELSEWHERE"))
        .await
        .unwrap();
    tries("BatchRecordTransitions");
    let request = v1::BatchRecordTransitionsRequest {
        namespace,
        transitions: vec![transition(&order, "stay", "")],
    };
    rpc.batch_record_transitions(request).await.unwrap();
    assert_eq!(history(&own, &order).await.len(), 2);

    let after = (
        get(&tenant, &order).await.unwrap(),
        history(&tenant, &order).await,
    );
    assert_eq!(after, before);
    assert_complete("FsmService", tried.into_iter());
}
