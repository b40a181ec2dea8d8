//! Calls that name rows of another tenant, where nothing is to be made.

use bridgebook::proto::v1::{self, WorkflowState, get_workflow_request::Key};
use prost::Message;

use super::{Case, case, outcomes, requests};
use crate::{
    bridge_state, fsm,
    support::{App, Tenant, new_id},
};

/// The rows of somebody, be they there or not.
struct Ids {
    workflow: v1::Workflow,
    entity_id: String,
    entity_type: String,
    bridge_id: String,
    batch_id: String,
    step_id: String,
    page_token: String,
}

impl Ids {
    /// Ids of nothing.
    fn free(tenant: &Tenant) -> Ids {
        let workflow = v1::Workflow {
            id: new_id(),
            correlation_id: new_id(),
            namespace: tenant.namespace.clone(),
            ..v1::Workflow::default()
        };
        Ids {
            workflow,
            entity_id: new_id(),
            entity_type: format!("type-{}", new_id()),
            bridge_id: new_id(),
            batch_id: new_id(),
            step_id: new_id(),
            page_token: "bm90aGluZw".into(),
        }
    }

    /// Ids of rows that the tenant has.
    async fn of(tenant: &Tenant) -> Ids {
        let free = Ids::free(tenant);
        let workflow = tenant.start().await;
        tenant.start().await;
        let step = v1::NewStep {
            id: free.step_id.clone(),
            ..tenant.new_step(&workflow, 1)
        };
        tenant.record_steps(vec![step]).await;
        let machine = v1::PutMachineRequest {
            entity_type: free.entity_type.clone(),
            ..fsm::order_machine(tenant)
        };
        fsm::put(tenant, machine).await.unwrap();
        let create = v1::NewTransition {
            entity_type: free.entity_type.clone(),
            ..fsm::transition(&free.entity_id, "create", "NEW")
        };
        fsm::record(tenant, create).await.unwrap();
        bridge_state::upsert(tenant, bridge_state::bridge(tenant, &free.bridge_id))
            .await
            .unwrap();
        let batch = v1::AccumulateBridgeStateRequest {
            batch_id: free.batch_id.clone(),
            ..bridge_state::batch(tenant, &free.bridge_id, 1)
        };
        bridge_state::accumulate(tenant, batch).await.unwrap();
        let page = v1::ListWorkflowsRequest {
            namespace: tenant.namespace.clone(),
            page_size: 1,
            ..v1::ListWorkflowsRequest::default()
        };
        let page = tenant.client.clone().list_workflows(page).await.unwrap();
        Ids {
            workflow,
            page_token: page.into_inner().next_page_token,
            ..free
        }
    }
}

/// Calls that name rows which are not the caller's.
async fn lookups(caller: &Tenant, ids: &Ids) -> Vec<Case> {
    let mut cases = workflow_lookups(caller, ids);
    cases.extend(entity_lookups(caller, ids));
    cases.extend(bridge_lookups(caller, ids).await);
    cases
}

fn workflow_lookups(caller: &Tenant, ids: &Ids) -> Vec<Case> {
    let namespace = || caller.namespace.clone();
    let (id, correlation_id) = (&ids.workflow.id, &ids.workflow.correlation_id);
    let get = |key| v1::GetWorkflowRequest {
        namespace: namespace(),
        key: Some(key),
        include_stamps: true,
    };
    let delete = |allow_missing| v1::DeleteWorkflowRequest {
        namespace: namespace(),
        workflow_id: id.clone(),
        allow_missing,
    };
    let step = caller.new_step(&ids.workflow, 1);
    let named_step = v1::NewStep {
        id: ids.step_id.clone(),
        ..step.clone()
    };
    let stamp = v1::NewStamp {
        workflow_id: id.clone(),
        file_hash: "a".into(),
        ..v1::NewStamp::default()
    };
    let steps_of = v1::ListStepsRequest {
        namespace: namespace(),
        workflow_id: id.clone(),
        ..v1::ListStepsRequest::default()
    };
    let stamps_of = v1::ListStampsRequest {
        namespace: namespace(),
        workflow_id: id.clone(),
        ..v1::ListStampsRequest::default()
    };
    let next_page = v1::ListWorkflowsRequest {
        namespace: namespace(),
        page_size: 1,
        page_token: ids.page_token.clone(),
        ..v1::ListWorkflowsRequest::default()
    };
    let wanted = caller.to(&ids.workflow, WorkflowState::Processing);
    let key = Key::CorrelationId(correlation_id.clone());
    let by_correlation_id = get(key);
    let by_id = get(Key::Id(id.clone()));
    vec![
        case("by id", "WorkflowService/GetWorkflow", by_id, &[id]),
        case(
            "by correlation_id",
            "WorkflowService/GetWorkflow",
            by_correlation_id,
            &[correlation_id],
        ),
        case("move", "WorkflowService/TransitionWorkflow", wanted, &[id]),
        case(
            "delete",
            "WorkflowService/DeleteWorkflow",
            delete(false),
            &[id],
        ),
        case(
            "delete if it is there",
            "WorkflowService/DeleteWorkflow",
            delete(true),
            &[id],
        ),
        case(
            "step",
            "WorkflowService/RecordStep",
            requests::step(caller, step.clone()),
            &[id],
        ),
        case(
            "steps",
            "WorkflowService/BatchRecordSteps",
            requests::steps(caller, step),
            &[id],
        ),
        case(
            "step that is there",
            "WorkflowService/RecordStep",
            requests::step(caller, named_step),
            &[id],
        ),
        case(
            "stamp",
            "WorkflowService/RecordStamp",
            requests::stamp(caller, stamp.clone()),
            &[id],
        ),
        case(
            "stamps",
            "WorkflowService/BatchRecordStamps",
            requests::stamps(caller, stamp),
            &[id],
        ),
        case(
            "list of steps",
            "WorkflowService/ListSteps",
            steps_of,
            &[id],
        ),
        case(
            "list of stamps",
            "WorkflowService/ListStamps",
            stamps_of,
            &[id],
        ),
        case("page", "WorkflowService/ListWorkflows", next_page, &[]),
    ]
}

fn entity_lookups(caller: &Tenant, ids: &Ids) -> Vec<Case> {
    let namespace = || caller.namespace.clone();
    let (id, entity_type) = (&ids.entity_id, &ids.entity_type);
    let get = v1::GetEntityRequest {
        namespace: namespace(),
        entity_type: entity_type.clone(),
        entity_id: id.clone(),
    };
    let history = |entity_type: &str, entity_id: &str| v1::ListTransitionsRequest {
        namespace: namespace(),
        entity_type: entity_type.into(),
        entity_id: entity_id.into(),
        ..v1::ListTransitionsRequest::default()
    };
    let stats = v1::GetTransitionStatsRequest {
        namespace: namespace(),
        entity_type: entity_type.clone(),
        entity_id: id.clone(),
        ..v1::GetTransitionStatsRequest::default()
    };
    let list = v1::ListEntitiesRequest {
        namespace: namespace(),
        entity_type: entity_type.clone(),
        ..v1::ListEntitiesRequest::default()
    };
    let get_machine = v1::GetMachineRequest {
        namespace: namespace(),
        entity_type: entity_type.clone(),
        version: 0,
    };
    let delete_machine = v1::DeleteMachineRequest {
        namespace: namespace(),
        entity_type: entity_type.clone(),
        allow_missing: false,
    };
    // No machine stands in its way, and nothing is in its place.
    let create = v1::NewTransition {
        entity_type: entity_type.clone(),
        ..fsm::transition(id, "begin", "ELSEWHERE")
    };
    let put = v1::PutMachineRequest {
        entity_type: entity_type.clone(),
        allow_stranded: true,
        ..fsm::order_machine(caller)
    };
    let of_workflow = history("workflow", &ids.workflow.id);
    let of_bridge = history("bridge", &ids.bridge_id);
    let names = &[id, entity_type];
    let mut cases = vec![
        case("entity", "FsmService/GetEntity", get, names),
        case(
            "history",
            "FsmService/ListTransitions",
            history(entity_type, id),
            names,
        ),
        case(
            "history of a workflow",
            "FsmService/ListTransitions",
            of_workflow,
            names,
        ),
        case(
            "history of a bridge",
            "FsmService/ListTransitions",
            of_bridge,
            names,
        ),
        case("statistics", "FsmService/GetTransitionStats", stats, names),
        case("list of entities", "FsmService/ListEntities", list, names),
        case("machine", "FsmService/GetMachine", get_machine, names),
        case(
            "no machine",
            "FsmService/DeleteMachine",
            delete_machine,
            names,
        ),
    ];
    let create = requests::record(caller, create);
    for (name, method, request) in [
        (
            "first move",
            "FsmService/RecordTransition",
            create.encode_to_vec(),
        ),
        (
            "first machine",
            "FsmService/PutMachine",
            put.encode_to_vec(),
        ),
    ] {
        cases.push(Case {
            name,
            method,
            request,
            ids: Vec::new(),
            stores: true,
        });
    }
    cases
}

async fn bridge_lookups(caller: &Tenant, ids: &Ids) -> Vec<Case> {
    let id = &ids.bridge_id;
    let get = v1::GetBridgeStateRequest {
        namespace: caller.namespace.clone(),
        bridge_id: id.clone(),
    };
    let delete = |allow_missing| v1::DeleteBridgeStateRequest {
        namespace: caller.namespace.clone(),
        bridge_id: id.clone(),
        allow_missing,
    };
    let own = bridge_state::new_bridge(caller).await;
    let batch = v1::AccumulateBridgeStateRequest {
        batch_id: ids.batch_id.clone(),
        ..bridge_state::batch(caller, &own, 1)
    };
    let add = "BridgeStateService/AccumulateBridgeState";
    vec![
        case("bridge", "BridgeStateService/GetBridgeState", get, &[id]),
        case(
            "delete",
            "BridgeStateService/DeleteBridgeState",
            delete(false),
            &[id],
        ),
        case(
            "delete if it is there",
            "BridgeStateService/DeleteBridgeState",
            delete(true),
            &[id],
        ),
        Case {
            stores: true,
            ..case("batch", add, batch, &[])
        },
    ]
}

#[tokio::test]
async fn another_tenants_id_is_looked_for_and_not_found_like_one_that_never_was() {
    let (app, tap) = App::tapped().await;
    let holder = app.tenant();
    let theirs = Ids::of(&holder).await;
    let (one, other) = (app.tenant(), app.tenant());
    let foreign = lookups(&one, &theirs).await;
    let foreign = outcomes(&one, &tap, foreign).await;
    let free = lookups(&other, &Ids::free(&other)).await;
    let free = outcomes(&other, &tap, free).await;
    assert_eq!(foreign.len(), free.len());
    for (foreign, free) in foreign.iter().zip(&free) {
        assert_eq!(foreign, free);
        let is_refused_before = foreign.name == "page";
        assert_eq!(foreign.ran.is_empty(), is_refused_before, "{foreign:?}");
    }
    // Nothing of it was touched either.
    let mut rows = holder.get(&theirs.workflow).await;
    assert_eq!(rows.steps.pop().unwrap().id, theirs.step_id);
    assert_eq!(
        bridge_state::totals(&holder, &theirs.bridge_id).await,
        (1, 1)
    );
}
