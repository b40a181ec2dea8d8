//! FsmService, one file per RPC.

mod batch_record_transitions;
mod delete_machine;
mod get_entity;
mod get_machine;
mod get_transition_stats;
mod list_entities;
mod list_machines;
mod list_transitions;
mod machine_lock;
mod mermaid;
mod names;
mod put_machine;
mod record_transition;
mod watch_transitions;

use bridgebook::proto::v1::{self, fsm_service_client::FsmServiceClient};
use tonic::{Status, transport::Channel};

use crate::support::{Tenant, new_id};

pub fn client(tenant: &Tenant) -> FsmServiceClient<Channel> {
    FsmServiceClient::new(tenant.channel.clone())
}

/// Returns the machine of an order, which is paid and shipped, or cancelled before.
pub fn order_machine(tenant: &Tenant) -> v1::PutMachineRequest {
    machine(
        tenant,
        "NEW",
        &["SHIPPED", "CANCELLED"],
        &[
            ("NEW", "pay", "PAID"),
            ("NEW", "cancel", "CANCELLED"),
            ("PAID", "ship", "SHIPPED"),
            ("PAID", "cancel", "CANCELLED"),
        ],
    )
}

pub fn machine(
    tenant: &Tenant,
    initial: &str,
    terminal: &[&str],
    moves: &[(&str, &str, &str)],
) -> v1::PutMachineRequest {
    let moves = moves.iter().map(|(from, event, to)| v1::FsmMove {
        from_state: (*from).into(),
        transition_event: (*event).into(),
        to_state: (*to).into(),
    });
    v1::PutMachineRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        initial_state: initial.into(),
        terminal_states: terminal.iter().map(ToString::to_string).collect(),
        moves: moves.collect(),
        ..v1::PutMachineRequest::default()
    }
}

pub async fn put(
    tenant: &Tenant,
    request: v1::PutMachineRequest,
) -> Result<v1::PutMachineResponse, Status> {
    let answer = client(tenant).put_machine(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Returns a move of an order.
pub fn transition(entity_id: &str, event: &str, to: &str) -> v1::NewTransition {
    v1::NewTransition {
        entity_type: "order".into(),
        entity_id: entity_id.into(),
        transition_event: event.into(),
        to_state: to.into(),
        ..v1::NewTransition::default()
    }
}

pub async fn record(
    tenant: &Tenant,
    transition: v1::NewTransition,
) -> Result<v1::RecordTransitionResponse, Status> {
    let request = v1::RecordTransitionRequest {
        namespace: tenant.namespace.clone(),
        transition: Some(transition),
    };
    let answer = client(tenant).record_transition(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Creates an order in the state NEW.
pub async fn new_order(tenant: &Tenant) -> String {
    let id = new_id();
    record(tenant, transition(&id, "create", "NEW"))
        .await
        .expect("an order");
    id
}

pub async fn get(tenant: &Tenant, entity_id: &str) -> Result<v1::GetEntityResponse, Status> {
    let request = v1::GetEntityRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        entity_id: entity_id.into(),
    };
    let answer = client(tenant).get_entity(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Returns the history of an order, oldest first.
pub async fn history(tenant: &Tenant, entity_id: &str) -> Vec<v1::FsmTransition> {
    let request = v1::ListTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        entity_id: entity_id.into(),
        page_size: 1000,
        ..v1::ListTransitionsRequest::default()
    };
    let answer = client(tenant).list_transitions(request).await;
    answer.expect("a history").into_inner().transitions
}

/// Returns the positions of an entity type's transitions, oldest first.
pub async fn positions(tenant: &Tenant, entity_type: &str) -> Vec<String> {
    let request = v1::ListTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: entity_type.into(),
        page_size: 1000,
        ..v1::ListTransitionsRequest::default()
    };
    let answer = client(tenant).list_transitions(request).await;
    let rows = answer.expect("a history").into_inner().transitions;
    rows.into_iter().map(|row| row.position).collect()
}

/// Returns the states of an order's history.
pub async fn states(tenant: &Tenant, entity_id: &str) -> Vec<String> {
    let history = history(tenant, entity_id).await.into_iter();
    history.map(|row| row.to_state).collect()
}
