//! A write that adds a row to the journal returns the position of the row.

use std::collections::BTreeMap;

use bridgebook::{
    domain::role::Role,
    proto::{
        Rpc,
        v1::{self, record_transition_result::Result::Response},
    },
};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use serde_json::Value as Json;

use crate::{
    fsm,
    samples::{Rows, call, sample},
    support::{App, Tenant, contract, new_id},
};

/// Returns the RPCs whose responses have a position.
fn journaling() -> impl Iterator<Item = Rpc> {
    let writes = contract::tenant_rpcs().filter(|rpc| rpc.role() == Role::Writer);
    writes.filter(|rpc| has_position(&contract::messages(*rpc)[1]))
}

fn has_position(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| match field.kind() {
        Kind::Message(inner) => inner.package_name() == "bridgebook.v1" && has_position(&inner),
        _ => field.name() == "position",
    })
}

/// Adds the positions of a response.
fn collect(message: &DynamicMessage, found: &mut Vec<String>) {
    for (field, value) in message.fields() {
        match value {
            Value::String(text) if field.name() == "position" => found.push(text.clone()),
            Value::Message(inner) => collect(inner, found),
            Value::List(items) => items
                .iter()
                .filter_map(Value::as_message)
                .for_each(|inner| collect(inner, found)),
            _ => {}
        }
    }
}

async fn positions(app: &App, rpc: Rpc, request: &Json) -> Vec<String> {
    let response = call(app, rpc, None, request).await;
    let response = response.unwrap_or_else(|error| panic!("{rpc:?}: {error:?}"));
    let mut found = Vec::new();
    collect(&response, &mut found);
    found
}

/// Returns the ids of a journal by their positions.
async fn journal(tenant: &Tenant, rpc: Rpc, request: &Json) -> BTreeMap<String, String> {
    let is_registry = rpc.path().contains("RegistryService");
    let entity_type = || request.pointer("/transition/entity_type");
    let entity_type = entity_type().or(request.pointer("/transitions/0/entity_type"));
    let (namespace, types) = match (is_registry, entity_type.and_then(Json::as_str)) {
        (true, _) => ("bridgebook.registry", vec!["node"]),
        (false, Some(kind)) => (tenant.namespace.as_str(), vec![kind]),
        (false, None) => (tenant.namespace.as_str(), vec!["workflow", "bridge"]),
    };
    let mut rows = BTreeMap::new();
    for entity_type in types {
        let request = v1::ListTransitionsRequest {
            namespace: namespace.into(),
            entity_type: entity_type.into(),
            page_size: 1000,
            ..v1::ListTransitionsRequest::default()
        };
        let list = fsm::client(tenant).list_transitions(request).await.unwrap();
        let list = list.into_inner().transitions.into_iter();
        rows.extend(list.map(|row| (row.position, row.id)));
    }
    rows
}

/// Returns the bits of a sample's variant that is journaled, and that may be sent twice.
fn journaled_variant(rpc: Rpc) -> u8 {
    let path = rpc.path();
    // A heartbeat with another health, and a deletion with allow_missing.
    u8::from(
        ["/Delete", "/Deregister", "eartbeat"]
            .iter()
            .any(|it| path.contains(it)),
    )
}

/// Returns whether the retry of a call tells the position of the first call.
fn is_told_twice(rpc: Rpc) -> bool {
    let not = ["eartbeat", "UpsertBridgeState", "AccumulateBridgeState"];
    not.iter().all(|it| !rpc.path().contains(it))
}

#[tokio::test]
async fn a_write_returns_the_position_of_its_row_and_a_retry_returns_it_again() {
    let (app, tap) = App::tapped().await;
    let mut walked = 0;
    for (rpc, loses_answer) in journaling().flat_map(|rpc| [(rpc, false), (rpc, true)]) {
        if loses_answer && !is_told_twice(rpc) {
            continue;
        }
        let tenant = app.tenant();
        let rows = Rows::make(&app, &tenant.namespace, None).await;
        let request = rows.fill(&sample(rpc).request(journaled_variant(rpc)));
        let before = journal(&tenant, rpc, &request).await;
        if loses_answer {
            tap.lose_commit("");
        }
        let first = positions(&app, rpc, &request).await;
        assert!(tap.has_lost_commit(), "{rpc:?}");
        tap.keep_commits();
        let mut after = journal(&tenant, rpc, &request).await;
        let again = positions(&app, rpc, &request).await;
        assert_eq!(journal(&tenant, rpc, &request).await, after, "{rpc:?}");
        after.retain(|position, _| !before.contains_key(position));
        assert_eq!(after.len(), 1, "{rpc:?} journals {after:?}");
        assert!(after.keys().eq(&first), "{rpc:?}: {first:?}, not {after:?}");
        assert!(before.keys().all(|it| *it < first[0]), "{rpc:?}");
        let expected = if is_told_twice(rpc) {
            first
        } else {
            Vec::new()
        };
        assert_eq!(again, expected, "{rpc:?}");
        walked += 1;
    }
    assert!(walked > 15, "only {walked} writes");
}

#[tokio::test]
async fn each_move_of_an_entity_in_a_batch_has_its_own_position() {
    let (_app, tenant) = App::with_tenant().await;
    let order = new_id();
    let create = v1::NewTransition {
        transition_id: new_id(),
        ..fsm::transition(&order, "create", "NEW")
    };
    let step = |number| fsm::transition(&order, "step", &format!("S{number}"));
    let steps = [step(1), step(2), step(3)];
    // The last one repeats the first.
    let transitions = [vec![create.clone()], steps.to_vec(), vec![create]].concat();
    let request = v1::BatchRecordTransitionsRequest {
        namespace: tenant.namespace.clone(),
        transitions,
    };
    let batch = fsm::client(&tenant).batch_record_transitions(request).await;
    let results = batch.unwrap().into_inner().results.into_iter();
    let told: Vec<_> = results
        .map(|it| match it.result {
            Some(Response(response)) => response.transition.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let rows = fsm::history(&tenant, &order).await;
    assert_eq!(told[..4], rows);
    assert_eq!(told[4], told[0]);
    let positions: Vec<_> = rows.iter().map(|row| &row.position).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
}

/// A registration and a heartbeat that do not change the health of a node.
#[tokio::test]
async fn a_registration_tells_where_the_health_was_journaled_and_a_heartbeat_does_not() {
    let (app, tenant) = App::with_tenant().await;
    let rows = Rows::make(&app, &tenant.namespace, None).await;
    let (register, beat) = (
        Rpc::RegistryServiceRegisterNode,
        Rpc::RegistryServiceHeartbeat,
    );
    let request = rows.fill(&sample(register).request(0));
    let first = positions(&app, register, &request).await;
    let heartbeat = |health: &str| {
        let (namespace, node_id) = (&request["namespace"], &request["node_id"]);
        let heartbeat = serde_json::json!({"node_id": node_id, "health_status": health});
        serde_json::json!({"namespace": namespace, "heartbeat": heartbeat})
    };
    assert!(
        positions(&app, beat, &heartbeat("NODE_HEALTH_HEALTHY"))
            .await
            .is_empty()
    );
    assert_eq!(positions(&app, register, &request).await, first);
    let degraded = positions(&app, beat, &heartbeat("NODE_HEALTH_DEGRADED")).await;
    let healthy = positions(&app, register, &request).await;
    assert!(first < degraded && degraded < healthy);
    assert_eq!(positions(&app, register, &request).await, healthy);
}
