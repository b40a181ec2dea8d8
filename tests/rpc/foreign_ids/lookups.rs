//! Requests that name rows of another tenant: the same answer and the same statements as
//! for an id that no row has.

use bridgebook::proto::{Rpc, v1};

use super::{Case, Outcome, case, outcomes, requests};
use crate::{
    bridge_state,
    samples::{Field, Foreign, Rows, fields, fields_of_variants, unused},
    support::{App, Tap, Tenant, contract, new_id},
};

/// Sends every request that can name a row, once for each field. `value` returns the id.
async fn look_up(
    app: &App,
    tap: &Tap,
    caller: &Tenant,
    value: impl Fn(Rpc, &str) -> String,
) -> Vec<(String, Outcome)> {
    let own = Rows::make(app, &caller.namespace, None).await;
    // First the requests that only look up; then those that store a row under the id, each
    // once, because the row would be found afterwards.
    let all = |fields: fn(Rpc) -> Vec<Field>| {
        contract::tenant_rpcs()
            .flat_map(move |rpc| fields(rpc).into_iter().map(move |field| (rpc, field)))
    };
    let lookups = all(fields_of_variants).filter(|(_, field)| !field.is_new());
    let stores = all(fields).filter(|(_, field)| field.is_new());
    // The registry is public: it reveals whether a node exists.
    // The statements of a stream depend on time. tests/fsm/watch_transitions has its ids.
    let hidden = lookups
        .chain(stores)
        .filter(|(rpc, _)| !rpc.is_stream())
        .filter(|(_, field)| field.foreign() == Foreign::Unused && field.kind != "node");
    let mut found = Vec::new();
    for (rpc, field) in hidden {
        let id = value(rpc, &field.kind);
        let case = Case {
            name: "lookup",
            method: contract::method(rpc).trim_start_matches("bridgebook.v1."),
            request: contract::encode(rpc, &field.request(rpc, &own, &id)),
            ids: [&id].into_iter().chain(own.ids()).cloned().collect(),
            stores: field.is_new(),
        };
        let outcome = outcomes(caller, tap, vec![case]).await.remove(0);
        found.push((format!("{rpc:?} {field:?}"), outcome));
    }
    found
}

#[tokio::test]
async fn an_id_of_another_tenant_is_looked_up_like_an_unused_one() {
    let (app, tap) = App::tapped().await;
    let holder = app.tenant();
    let theirs = Rows::make(&app, &holder.namespace, None).await;
    let (one, other) = (app.tenant(), app.tenant());
    let foreign = look_up(&app, &tap, &one, |rpc, kind| theirs.value(rpc, kind)).await;
    // The same id in all requests, because some of them store a row under it.
    let unmade = Rows::unmade(&other.namespace);
    let free = look_up(&app, &tap, &other, |rpc, kind| match kind {
        "page" | "position" | "origin" => unused(kind),
        kind => unmade.value(rpc, kind),
    });
    let free = free.await;
    assert!(!foreign.is_empty());
    assert_eq!(foreign.len(), free.len());
    for (foreign, free) in foreign.iter().zip(&free) {
        assert_eq!(foreign, free);
        // A page token and a position tell their namespace.
        let is_bound = ["/page_token", "/consumed_"]
            .iter()
            .any(|field| foreign.0.contains(field));
        assert_eq!(foreign.1.ran.is_empty(), is_bound, "{foreign:?}");
    }
}

/// Returns requests that no sample covers: built-in entity types, and two ids at once.
fn more_lookups(caller: &Tenant, bridge_id: &str, theirs: &Theirs) -> Vec<Case> {
    let step = v1::NewStep {
        id: theirs.step_id.clone(),
        ..caller.new_step(&theirs.workflow, 1)
    };
    let batch = v1::AccumulateBridgeStateRequest {
        batch_id: theirs.batch_id.clone(),
        ..bridge_state::batch(caller, bridge_id, 1)
    };
    let history = |entity_type: &str, entity_id: &str| v1::ListTransitionsRequest {
        namespace: caller.namespace.clone(),
        entity_type: entity_type.into(),
        entity_id: entity_id.into(),
        ..v1::ListTransitionsRequest::default()
    };
    let ids = &[&theirs.workflow.id];
    let accumulate = "BridgeStateService/AccumulateBridgeState";
    vec![
        case(
            "the history of a workflow",
            "FsmService/ListTransitions",
            history("workflow", &theirs.workflow.id),
            ids,
        ),
        case(
            "the history of a bridge",
            "FsmService/ListTransitions",
            history("bridge", &theirs.bridge_id),
            ids,
        ),
        case(
            "an existing step of an existing workflow",
            "WorkflowService/RecordStep",
            requests::step(caller, step),
            ids,
        ),
        Case {
            stores: true,
            ..case("an existing batch of an own bridge", accumulate, batch, &[])
        },
    ]
}

struct Theirs {
    workflow: v1::Workflow,
    step_id: String,
    bridge_id: String,
    batch_id: String,
}

impl Theirs {
    fn unused() -> Theirs {
        let workflow = v1::Workflow {
            id: new_id(),
            ..v1::Workflow::default()
        };
        Theirs {
            workflow,
            step_id: new_id(),
            bridge_id: new_id(),
            batch_id: new_id(),
        }
    }

    async fn make(holder: &Tenant) -> Theirs {
        let workflow = holder.start().await;
        let theirs = Theirs {
            workflow,
            ..Theirs::unused()
        };
        let step = v1::NewStep {
            id: theirs.step_id.clone(),
            ..holder.new_step(&theirs.workflow, 1)
        };
        holder.record_steps(vec![step]).await;
        let bridge = bridge_state::bridge(holder, &theirs.bridge_id);
        bridge_state::upsert(holder, bridge).await.unwrap();
        let batch = v1::AccumulateBridgeStateRequest {
            batch_id: theirs.batch_id.clone(),
            ..bridge_state::batch(holder, &theirs.bridge_id, 1)
        };
        bridge_state::accumulate(holder, batch).await.unwrap();
        theirs
    }
}

#[tokio::test]
async fn histories_and_pairs_of_ids_of_another_tenant_are_looked_up_like_unused_ones() {
    let (app, tap) = App::tapped().await;
    let holder = app.tenant();
    let theirs = Theirs::make(&holder).await;
    let mut scenes = Vec::new();
    for theirs in [&theirs, &Theirs::unused()] {
        let caller = app.tenant();
        let own = bridge_state::new_bridge(&caller).await;
        let cases = more_lookups(&caller, &own, theirs);
        scenes.push(outcomes(&caller, &tap, cases).await);
    }
    assert_eq!(scenes[0], scenes[1]);
    assert!(scenes[0].iter().all(|outcome| !outcome.ran.is_empty()));
    let mut rows = holder.get(&theirs.workflow).await;
    assert_eq!(rows.steps.pop().unwrap().id, theirs.step_id);
    assert_eq!(
        bridge_state::totals(&holder, &theirs.bridge_id).await,
        (1, 1)
    );
}
