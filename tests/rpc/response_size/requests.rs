//! The request with the largest response of each RPC, over the rows of `rows.sql`.

use bridgebook::proto::Rpc;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use serde_json::{Value, json};

use crate::{
    samples::call,
    support::{App, contract, new_id},
};

/// The RPCs whose largest response leaves something out.
pub const OMITTING: [Rpc; 15] = [
    Rpc::WorkflowServiceStartWorkflow,
    Rpc::WorkflowServiceTransitionWorkflow,
    Rpc::WorkflowServiceGetWorkflow,
    Rpc::WorkflowServiceListWorkflows,
    Rpc::WorkflowServiceListSteps,
    Rpc::WorkflowServiceListStamps,
    Rpc::FsmServiceBatchRecordTransitions,
    Rpc::FsmServiceListTransitions,
    Rpc::BridgeStateServiceUpsertBridgeState,
    Rpc::BridgeStateServiceAccumulateBridgeState,
    Rpc::BridgeStateServiceGetBridgeState,
    Rpc::BridgeStateServiceListBridgeStates,
    Rpc::RegistryServiceGetNode,
    Rpc::RegistryServiceListNodes,
    Rpc::RegistryServiceDiscoverNodes,
];

/// The longest names.
fn namespace() -> String {
    format!("n{}", "s".repeat(254))
}

fn event() -> String {
    format!("e{}", "v".repeat(99))
}

fn message() -> String {
    "€".repeat(65_536)
}

/// A document of `length` times 11 bytes as protobuf.
fn ones(length: usize) -> Value {
    json!({"n": vec![1; length]})
}

/// The largest document: 3 MiB as protobuf.
fn largest_document() -> Value {
    ones(285_900)
}

/// Makes rows, if the RPC needs rows of its own, and returns the request with the largest
/// response.
pub async fn largest(app: &App, rpc: Rpc) -> Value {
    let request = match rpc {
        Rpc::WorkflowServiceStartWorkflow => start_workflow(app).await,
        Rpc::WorkflowServiceTransitionWorkflow => json!({
            "workflow_id": select(app, "id FROM workflow_executions WHERE current_state = 'PROCESSING'").await,
            "to_state": "WORKFLOW_STATE_FAILED",
            "transition_data": ones(280_000),
            "error_message": message(),
        }),
        Rpc::WorkflowServiceGetWorkflow => {
            json!({"id": workflow(app).await, "include_stamps": true})
        }
        Rpc::WorkflowServiceListSteps => json!({"workflow_id": workflow(app).await}),
        Rpc::WorkflowServiceDeleteWorkflow => {
            let other = "id FROM workflow_executions WHERE error_message IS NULL";
            json!({"workflow_id": select(app, other).await})
        }
        Rpc::WorkflowServiceRecordStep => json!({"step": step(app, largest_document()).await}),
        Rpc::WorkflowServiceBatchRecordSteps => json!({"steps": steps(app).await}),
        Rpc::WorkflowServiceRecordStamp => json!({"stamp": stamp(&largest_document())}),
        Rpc::WorkflowServiceBatchRecordStamps => {
            let stamps = (0..999).map(|_| stamp(&json!({"a": 1})));
            let stamps: Vec<_> = stamps.chain([stamp(&ones(260_000))]).collect();
            json!({ "stamps": stamps })
        }
        Rpc::FsmServicePutMachine => machine("largest"),
        Rpc::FsmServiceGetMachine => json!({"entity_type": "largest"}),
        Rpc::FsmServiceListMachines => {
            for number in 0..60 {
                let machine = machine(&format!("machine-{number}"));
                let made = call(app, Rpc::FsmServicePutMachine, None, &scoped(machine)).await;
                made.unwrap();
            }
            json!({})
        }
        Rpc::FsmServiceDeleteMachine => json!({"entity_type": "machine-1"}),
        Rpc::FsmServiceRecordTransition => json!({
            "transition": {"transition_data": largest_document(), "to_state": "S", "entity_id": new_id(),
                           "entity_type": event(), "transition_event": event()},
        }),
        Rpc::FsmServiceBatchRecordTransitions => batch_record_transitions(app).await,
        Rpc::FsmServiceGetEntity => get_entity(app).await,
        Rpc::FsmServiceListEntities
        | Rpc::FsmServiceListTransitions
        | Rpc::FsmServiceGetTransitionStats => json!({"entity_type": event()}),
        // Its first message; tests/fsm/watch_transitions has the others.
        Rpc::FsmServiceWatchTransitions => json!({"from_start": true}),
        Rpc::BridgeStateServiceUpsertBridgeState => json!({
            "bridge_id": bridge(app).await, "total_items_aggregated": "7",
            "current_fsm_state": "MOVED",
        }),
        Rpc::BridgeStateServiceAccumulateBridgeState => json!({
            "bridge_id": bridge(app).await, "batch_id": new_id(), "items_aggregated": "7",
        }),
        Rpc::BridgeStateServiceGetBridgeState | Rpc::BridgeStateServiceDeleteBridgeState => {
            json!({"bridge_id": bridge(app).await})
        }
        Rpc::RegistryServiceRegisterNode => {
            let document = json!({"x": "y".repeat(16_000)});
            json!({
                "node_id": format!("n{}", "d".repeat(254)), "node_type": event(),
                "node_version": "1", "capabilities": document, "endpoints": document,
                "metadata": document,
            })
        }
        Rpc::RegistryServiceHeartbeat => json!({"heartbeat": {"node_id": node(10)}}),
        Rpc::RegistryServiceBatchHeartbeat => {
            let unknown = (0..1000).map(|number| json!({"node_id": format!("x{}", node(number))}));
            json!({"heartbeats": unknown.collect::<Vec<_>>()})
        }
        Rpc::RegistryServiceDeregisterNode => json!({"node_id": node(1000)}),
        Rpc::RegistryServiceGetNode => json!({"node_id": node(11)}),
        Rpc::RegistryServiceDiscoverNodes => json!({"node_type": event(), "page_size": 1000}),
        Rpc::AdminServiceListNamespaceSummaries
        | Rpc::AdminServiceGetIndexUsage
        | Rpc::AdminServiceGetTableScans => json!({"limit": 1000}),
        Rpc::AdminServiceCreateToken => json!({
            "name": "€".repeat(100), "role": "ROLE_READER",
            "namespaces": vec![namespace(); 100],
        }),
        Rpc::AdminServiceRevokeToken => json!({"id": select(app, "id FROM api_tokens").await}),
        Rpc::AdminServiceSetRetentionPolicy | Rpc::AdminServiceDeleteRetentionPolicy => {
            json!({"namespace": namespace(), "table": "RETAINED_TABLE_FSM_TRANSITIONS"})
        }
        Rpc::AdminServiceSetQuota | Rpc::AdminServiceDeleteQuota => {
            json!({"namespace": namespace()})
        }
        Rpc::WorkflowServiceListWorkflows
        | Rpc::WorkflowServiceListStamps
        | Rpc::BridgeStateServiceListBridgeStates
        | Rpc::BridgeStateServiceGetBridgeStats
        | Rpc::RegistryServiceListNodes
        | Rpc::AdminServiceGetSystemHealth
        | Rpc::AdminServiceListMigrations
        | Rpc::AdminServiceListTokens
        | Rpc::AdminServiceListRetentionPolicies
        | Rpc::AdminServiceListQuotas
        | Rpc::ServerServiceGetServerInfo => json!({}),
    };
    complete(rpc, request)
}

/// Adds the namespace and the size of the page.
fn complete(rpc: Rpc, mut request: Value) -> Value {
    if contract::has_field(rpc, "page_size") {
        request["page_size"] = 1000.into();
    }
    match contract::has_field(rpc, "namespace") {
        true => scoped(request),
        false => request,
    }
}

fn scoped(mut request: Value) -> Value {
    request["namespace"] = namespace().into();
    request
}

/// Starts a workflow whose metadata then grows. A retry returns it.
async fn start_workflow(app: &App) -> Value {
    let request = json!({"correlation_id": new_id(), "workflow_type": event()});
    let first = scoped(request.clone());
    call(app, Rpc::WorkflowServiceStartWorkflow, None, &first)
        .await
        .unwrap();
    let id = request["correlation_id"].as_str().unwrap();
    let grow = format!(
        "UPDATE workflow_executions w SET metadata = large.metadata
           FROM (SELECT metadata FROM workflow_executions
                  WHERE error_message IS NOT NULL LIMIT 1) large
          WHERE w.correlation_id = '{id}'"
    );
    let mut database = app.schema.connect().await;
    database.batch_execute(&grow).await.unwrap();
    request
}

/// Returns the workflow with large metadata, steps and stamps.
async fn workflow(app: &App) -> String {
    select(app, "workflow_id AS id FROM workflow_steps").await
}

async fn step(app: &App, data: Value) -> Value {
    json!({
        "workflow_id": workflow(app).await, "step_name": "€".repeat(100),
        "step_order": 2000, "status": "STEP_STATUS_FAILED", "step_data": data, "error_message": message(),
    })
}

/// Returns one large step, long messages, and invalid steps.
async fn steps(app: &App) -> Vec<Value> {
    let invalid = json!({
        "workflow_id": "€".repeat(40), "step_name": "\u{1}€".repeat(20), "step_order": -1,
        "execution_time_ms": -1,
    });
    let mut steps = vec![invalid; 1000];
    steps[0] = step(app, ones(200_000)).await;
    steps[1] = step(app, json!({})).await;
    steps
}

fn stamp(data: &Value) -> Value {
    json!({"file_hash": "h".repeat(128), "stamp_data": data})
}

/// Returns a machine with 64 KiB of names, which may move from its only state in 650 ways.
fn machine(entity_type: &str) -> Value {
    let moves = (0..650).map(|number| {
        let event = format!("{}{number}", "e:".repeat(45));
        json!({"from_state": "HUB", "transition_event": event, "to_state": "HUB"})
    });
    json!({
        "entity_type": entity_type, "initial_state": "HUB", "moves": moves.collect::<Vec<_>>(),
    })
}

/// Returns one large move and 999 moves that the machine rejects.
async fn batch_record_transitions(app: &App) -> Value {
    let start = json!({
        "entity_type": "largest", "entity_id": new_id(), "to_state": "HUB",
        "transition_event": event(),
    });
    let started = scoped(json!({ "transition": start }));
    call(app, Rpc::FsmServiceRecordTransition, None, &started)
        .await
        .unwrap();
    let mut rejected = start;
    rejected["to_state"] = "S".repeat(50).into();
    let mut transitions = vec![rejected; 1000];
    transitions[0] = json!({
        "entity_type": "free", "entity_id": new_id(), "to_state": "S",
        "transition_event": event(), "transition_data": ones(260_000),
    });
    json!({ "transitions": transitions })
}

/// Returns the entity that [`batch_record_transitions`] started.
async fn get_entity(app: &App) -> Value {
    let entity = "entity_id AS id FROM fsm_entities WHERE entity_type = 'largest'";
    json!({"entity_type": "largest", "entity_id": select(app, entity).await})
}

/// Returns a bridge with a large document.
async fn bridge(app: &App) -> String {
    let large = "bridge_id AS id FROM bridge_states
                  WHERE aggregation_metadata ? 'n' ORDER BY bridge_id";
    select(app, large).await
}

fn node(number: usize) -> String {
    format!("n{number}{}", "d".repeat(250))
}

/// Returns an id that a query selects.
async fn select(app: &App, query: &str) -> String {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Uuid)]
        id: uuid::Uuid,
    }
    let query = diesel::sql_query(format!("SELECT {query} LIMIT 1"));
    let row: Row = query
        .get_result(&mut app.schema.connect().await)
        .await
        .unwrap();
    row.id.to_string()
}
