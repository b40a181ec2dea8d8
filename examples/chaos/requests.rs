//! Builds the requests of the callers.

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, FsmMove, NewStamp, NewStep, NewTransition, NodeHeartbeat,
    PutMachineRequest, RegisterNodeRequest, StartWorkflowRequest, StepStatus,
    TransitionWorkflowRequest, UpsertBridgeStateRequest, WorkflowState,
};
use uuid::Uuid;

/// The tenants.
pub const NAMESPACES: [&str; 2] = ["chaos-1", "chaos-2"];

/// All tenants, for those that may name several.
pub const ALL_NAMESPACES: &str = "chaos-*";

/// The type of the entities that callers move.
pub const ENTITY_TYPE: &str = "valve";

/// The number of shared entities, and of shared bridges: few, to cause contention.
const SHARED: usize = 4;

/// A tenant, and the rows that all of its callers change.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub namespace: &'static str,
    /// Entities.
    pub entities: Vec<Uuid>,
    /// Bridges.
    pub bridges: Vec<Uuid>,
}

impl Tenant {
    /// Chooses new ids.
    pub fn new(namespace: &'static str) -> Self {
        let ids = || (0..SHARED).map(|_| Uuid::now_v7()).collect();
        Tenant {
            namespace,
            entities: ids(),
            bridges: ids(),
        }
    }

    pub fn start(&self, id: Uuid) -> StartWorkflowRequest {
        StartWorkflowRequest {
            namespace: self.namespace.into(),
            id: id.to_string(),
            correlation_id: Uuid::now_v7().to_string(),
            workflow_type: "chaos".into(),
            ..StartWorkflowRequest::default()
        }
    }

    pub fn transition(
        &self,
        workflow: Uuid,
        id: Uuid,
        state: WorkflowState,
    ) -> TransitionWorkflowRequest {
        TransitionWorkflowRequest {
            namespace: self.namespace.into(),
            workflow_id: workflow.to_string(),
            transition_id: id.to_string(),
            to_state: state.into(),
            ..TransitionWorkflowRequest::default()
        }
    }

    pub fn machine(&self, entity_type: &str, last: &str) -> PutMachineRequest {
        PutMachineRequest {
            namespace: self.namespace.into(),
            entity_type: entity_type.into(),
            initial_state: "NEW".into(),
            terminal_states: vec![last.into()],
            moves: vec![FsmMove {
                from_state: "NEW".into(),
                transition_event: "end".into(),
                to_state: last.into(),
            }],
            ..PutMachineRequest::default()
        }
    }

    pub fn totals(&self, bridge: Uuid, items: i64) -> UpsertBridgeStateRequest {
        UpsertBridgeStateRequest {
            namespace: self.namespace.into(),
            bridge_id: bridge.to_string(),
            total_workflows_processed: Some(1),
            total_items_aggregated: Some(items),
            current_fsm_state: "ACTIVE".into(),
            ..UpsertBridgeStateRequest::default()
        }
    }

    pub fn batch(&self, bridge: Uuid, batch: Uuid, items: i64) -> AccumulateBridgeStateRequest {
        AccumulateBridgeStateRequest {
            namespace: self.namespace.into(),
            bridge_id: bridge.to_string(),
            batch_id: batch.to_string(),
            workflows_processed: 1,
            items_aggregated: items,
            current_fsm_state: "ACTIVE".into(),
            ..AccumulateBridgeStateRequest::default()
        }
    }

    pub fn node(&self, node_id: &str) -> RegisterNodeRequest {
        RegisterNodeRequest {
            namespace: self.namespace.into(),
            node_id: node_id.into(),
            node_type: "chaos".into(),
            node_version: "1.0.0".into(),
            ..RegisterNodeRequest::default()
        }
    }
}

pub fn step(workflow: Uuid, id: Uuid, order: i32) -> NewStep {
    NewStep {
        id: id.to_string(),
        workflow_id: workflow.to_string(),
        step_name: format!("step {order}"),
        step_order: order,
        status: StepStatus::Completed.into(),
        ..NewStep::default()
    }
}

pub fn stamp(workflow: Uuid, id: Uuid) -> NewStamp {
    NewStamp {
        id: id.to_string(),
        workflow_id: workflow.to_string(),
        file_hash: id.simple().to_string(),
        ..NewStamp::default()
    }
}

/// Builds a move to a state that no other move leads to.
pub fn entity_move(entity: Uuid, id: Uuid, from: Option<String>) -> NewTransition {
    NewTransition {
        transition_id: id.to_string(),
        entity_type: ENTITY_TYPE.into(),
        entity_id: entity.to_string(),
        from_state: from,
        to_state: state_of(id),
        transition_event: "turn".into(),
        ..NewTransition::default()
    }
}

/// Returns the state that a move leads to.
pub fn state_of(id: Uuid) -> String {
    format!("S-{id}")
}

pub fn heartbeat(node_id: &str) -> NodeHeartbeat {
    NodeHeartbeat {
        node_id: node_id.into(),
        ..NodeHeartbeat::default()
    }
}
