//! The requests of all RPCs that tenants make.

use bridgebook::proto::{
    Rpc,
    v1::{self, get_workflow_request::Key},
};
use prost::Message;

use super::calls::{Call, Pools, TYPES, Tenant};

/// A call, with all that its request is made of.
pub struct Asked<'a> {
    pub call: &'a Call,
    pub by: &'a Tenant,
    pub pools: &'a Pools,
}

impl Asked<'_> {
    /// The request; none for what is of no tenant.
    pub fn request(&self) -> Option<Vec<u8>> {
        let bytes = match self.call.rpc {
            Rpc::WorkflowServiceStartWorkflow => self.start().encode_to_vec(),
            Rpc::WorkflowServiceTransitionWorkflow => self.move_workflow().encode_to_vec(),
            Rpc::WorkflowServiceGetWorkflow => self.get_workflow().encode_to_vec(),
            Rpc::WorkflowServiceListWorkflows => self.list_workflows().encode_to_vec(),
            Rpc::WorkflowServiceDeleteWorkflow => self.delete_workflow().encode_to_vec(),
            Rpc::WorkflowServiceRecordStep => self.record_step().encode_to_vec(),
            Rpc::WorkflowServiceBatchRecordSteps => self.record_steps().encode_to_vec(),
            Rpc::WorkflowServiceListSteps => self.list_steps().encode_to_vec(),
            Rpc::WorkflowServiceRecordStamp => self.record_stamp().encode_to_vec(),
            Rpc::WorkflowServiceBatchRecordStamps => self.record_stamps().encode_to_vec(),
            Rpc::WorkflowServiceListStamps => self.list_stamps().encode_to_vec(),
            Rpc::FsmServicePutMachine => self.put_machine().encode_to_vec(),
            Rpc::FsmServiceGetMachine => self.get_machine().encode_to_vec(),
            Rpc::FsmServiceListMachines => self.list_machines().encode_to_vec(),
            Rpc::FsmServiceDeleteMachine => self.delete_machine().encode_to_vec(),
            Rpc::FsmServiceRecordTransition => self.record_move().encode_to_vec(),
            Rpc::FsmServiceBatchRecordTransitions => self.record_moves().encode_to_vec(),
            Rpc::FsmServiceGetEntity => self.get_entity().encode_to_vec(),
            Rpc::FsmServiceListEntities => self.list_entities().encode_to_vec(),
            Rpc::FsmServiceListTransitions => self.list_moves().encode_to_vec(),
            Rpc::FsmServiceGetTransitionStats => self.count_moves().encode_to_vec(),
            Rpc::BridgeStateServiceUpsertBridgeState => self.upsert_bridge().encode_to_vec(),
            Rpc::BridgeStateServiceAccumulateBridgeState => self.add_batch().encode_to_vec(),
            Rpc::BridgeStateServiceGetBridgeState => self.get_bridge().encode_to_vec(),
            Rpc::BridgeStateServiceListBridgeStates => self.list_bridges().encode_to_vec(),
            Rpc::BridgeStateServiceDeleteBridgeState => self.delete_bridge().encode_to_vec(),
            Rpc::BridgeStateServiceGetBridgeStats => self.sum_bridges().encode_to_vec(),
            Rpc::RegistryServiceRegisterNode => self.register().encode_to_vec(),
            Rpc::RegistryServiceHeartbeat => self.beat().encode_to_vec(),
            Rpc::RegistryServiceBatchHeartbeat => self.beat_all().encode_to_vec(),
            Rpc::RegistryServiceDeregisterNode => self.deregister().encode_to_vec(),
            Rpc::RegistryServiceGetNode => self.get_node().encode_to_vec(),
            Rpc::RegistryServiceListNodes => self.list_nodes().encode_to_vec(),
            Rpc::RegistryServiceDiscoverNodes => self.discover().encode_to_vec(),
            Rpc::AdminServiceGetSystemHealth
            | Rpc::AdminServiceListNamespaceSummaries
            | Rpc::AdminServiceGetIndexUsage
            | Rpc::AdminServiceGetTableScans
            | Rpc::AdminServiceListMigrations
            | Rpc::AdminServiceCreateToken
            | Rpc::AdminServiceListTokens
            | Rpc::AdminServiceRevokeToken => return None,
        };
        Some(bytes)
    }

    /// One of the bits of chance.
    fn has(&self, bit: u8) -> bool {
        self.call.variant & (1 << bit) != 0
    }

    fn namespace(&self) -> String {
        self.by.namespace.clone()
    }

    fn id(&self) -> String {
        self.pools.ids[self.call.thing].clone()
    }

    fn other_id(&self) -> String {
        self.pools.ids[self.call.other].clone()
    }

    /// One of the shared ids, or one that the service makes.
    fn maybe_id(&self) -> String {
        if self.has(0) {
            return String::new();
        }
        self.other_id()
    }

    /// The same for moves, from this place in the pool on.
    fn maybe_move_id(&self, from: usize) -> String {
        if self.has(0) {
            return String::new();
        }
        self.pools.moves[from + self.call.other].clone()
    }

    fn entity_type(&self) -> String {
        TYPES[self.call.thing].into()
    }

    /// A page token that either tenant got.
    fn token(&self) -> String {
        let token = self.call.token.as_ref();
        let token = token.map(|token| token.get(&self.pools.tokens).clone());
        token.unwrap_or_default()
    }

    fn start(&self) -> v1::StartWorkflowRequest {
        v1::StartWorkflowRequest {
            namespace: self.namespace(),
            correlation_id: self.id(),
            id: self.maybe_id(),
            workflow_type: self.by.name("type"),
            metadata: self.by.document(self.call.state),
            ..Default::default()
        }
    }

    fn move_workflow(&self) -> v1::TransitionWorkflowRequest {
        let states = [
            v1::WorkflowState::Failed,
            v1::WorkflowState::Processing,
            v1::WorkflowState::Cancelled,
        ];
        v1::TransitionWorkflowRequest {
            namespace: self.namespace(),
            workflow_id: self.id(),
            to_state: states[self.call.state].into(),
            transition_id: self.maybe_move_id(0),
            transition_event: self.by.name("move"),
            transition_data: self.by.document(1),
            metadata: self.by.document(2),
            ..Default::default()
        }
    }

    fn get_workflow(&self) -> v1::GetWorkflowRequest {
        let key = match self.has(0) {
            true => Key::CorrelationId(self.id()),
            false => Key::Id(self.id()),
        };
        v1::GetWorkflowRequest {
            namespace: self.namespace(),
            key: Some(key),
            include_stamps: true,
        }
    }

    fn list_workflows(&self) -> v1::ListWorkflowsRequest {
        v1::ListWorkflowsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            ..Default::default()
        }
    }

    fn delete_workflow(&self) -> v1::DeleteWorkflowRequest {
        v1::DeleteWorkflowRequest {
            namespace: self.namespace(),
            workflow_id: self.id(),
            allow_missing: self.has(0),
        }
    }

    fn step(&self, id: String, workflow_id: String) -> v1::NewStep {
        v1::NewStep {
            id,
            workflow_id,
            step_name: self.by.name("step"),
            status: v1::StepStatus::Failed.into(),
            step_data: self.by.document(self.call.state),
            error_message: Some(self.by.name("why")),
            ..Default::default()
        }
    }

    fn record_step(&self) -> v1::RecordStepRequest {
        v1::RecordStepRequest {
            namespace: self.namespace(),
            step: Some(self.step(self.maybe_id(), self.id())),
        }
    }

    fn record_steps(&self) -> v1::BatchRecordStepsRequest {
        let ids = &self.pools.ids;
        let steps = ids.iter().map(|id| self.step(self.maybe_id(), id.clone()));
        v1::BatchRecordStepsRequest {
            namespace: self.namespace(),
            steps: steps.collect(),
        }
    }

    fn list_steps(&self) -> v1::ListStepsRequest {
        v1::ListStepsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            workflow_id: self.id(),
        }
    }

    fn stamp(&self, id: String, workflow_id: String) -> v1::NewStamp {
        v1::NewStamp {
            id,
            workflow_id,
            file_hash: self.by.name("hash"),
            stamp_data: self.by.document(self.call.state),
        }
    }

    fn record_stamp(&self) -> v1::RecordStampRequest {
        let workflow_id = if self.has(1) {
            String::new()
        } else {
            self.id()
        };
        v1::RecordStampRequest {
            namespace: self.namespace(),
            stamp: Some(self.stamp(self.maybe_id(), workflow_id)),
        }
    }

    fn record_stamps(&self) -> v1::BatchRecordStampsRequest {
        let ids = &self.pools.ids;
        let stamps = ids.iter().map(|id| self.stamp(self.maybe_id(), id.clone()));
        v1::BatchRecordStampsRequest {
            namespace: self.namespace(),
            stamps: stamps.collect(),
        }
    }

    fn list_stamps(&self) -> v1::ListStampsRequest {
        v1::ListStampsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            workflow_id: if self.has(0) {
                self.id()
            } else {
                String::new()
            },
            ..Default::default()
        }
    }

    /// Round and round; the second machine of two has one state less.
    fn put_machine(&self) -> v1::PutMachineRequest {
        let count = if self.has(1) { 2 } else { 3 };
        let moves = (0..count).map(|from| v1::FsmMove {
            from_state: self.by.state(from),
            transition_event: self.by.name("go"),
            to_state: self.by.state((from + 1) % count),
        });
        v1::PutMachineRequest {
            namespace: self.namespace(),
            entity_type: self.entity_type(),
            initial_state: self.by.state(1),
            moves: moves.collect(),
            allow_stranded: self.has(2),
            ..Default::default()
        }
    }

    fn get_machine(&self) -> v1::GetMachineRequest {
        v1::GetMachineRequest {
            namespace: self.namespace(),
            entity_type: self.entity_type(),
            version: self.has(0).into(),
        }
    }

    fn list_machines(&self) -> v1::ListMachinesRequest {
        v1::ListMachinesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
        }
    }

    fn delete_machine(&self) -> v1::DeleteMachineRequest {
        v1::DeleteMachineRequest {
            namespace: self.namespace(),
            entity_type: self.entity_type(),
            allow_missing: self.has(0),
        }
    }

    fn transition(&self, entity_id: String) -> v1::NewTransition {
        let to_state = self.by.state(self.call.state);
        v1::NewTransition {
            transition_id: self.maybe_move_id(2),
            // Bridges are not moved here.
            entity_type: TYPES[self.call.thing % 2].into(),
            entity_id,
            to_state: if self.has(1) { String::new() } else { to_state },
            transition_event: self.by.name("go"),
            transition_data: self.by.document(3),
            ..Default::default()
        }
    }

    fn record_move(&self) -> v1::RecordTransitionRequest {
        v1::RecordTransitionRequest {
            namespace: self.namespace(),
            transition: Some(self.transition(self.other_id())),
        }
    }

    fn record_moves(&self) -> v1::BatchRecordTransitionsRequest {
        let ids = self.pools.ids.iter();
        v1::BatchRecordTransitionsRequest {
            namespace: self.namespace(),
            transitions: ids.map(|id| self.transition(id.clone())).collect(),
        }
    }

    fn get_entity(&self) -> v1::GetEntityRequest {
        v1::GetEntityRequest {
            namespace: self.namespace(),
            entity_type: TYPES[self.call.thing % 2].into(),
            entity_id: self.other_id(),
        }
    }

    fn list_entities(&self) -> v1::ListEntitiesRequest {
        v1::ListEntitiesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            entity_type: TYPES[self.call.thing % 2].into(),
            ..Default::default()
        }
    }

    /// The type of a row of the journal.
    fn journaled(&self) -> String {
        let types = ["workflow", "order", "parcel", "bridge"];
        types[usize::from(self.call.variant) % types.len()].into()
    }

    fn list_moves(&self) -> v1::ListTransitionsRequest {
        v1::ListTransitionsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            entity_type: self.journaled(),
            entity_id: if self.has(2) {
                self.id()
            } else {
                String::new()
            },
            ..Default::default()
        }
    }

    fn count_moves(&self) -> v1::GetTransitionStatsRequest {
        v1::GetTransitionStatsRequest {
            namespace: self.namespace(),
            entity_type: self.journaled(),
            ..Default::default()
        }
    }

    fn upsert_bridge(&self) -> v1::UpsertBridgeStateRequest {
        v1::UpsertBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
            total_items_aggregated: Some(i64::from(self.call.variant)),
            aggregation_metadata: self.by.document(self.call.other),
            current_fsm_state: self.by.state(self.call.state),
            ..Default::default()
        }
    }

    fn add_batch(&self) -> v1::AccumulateBridgeStateRequest {
        v1::AccumulateBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
            batch_id: self.other_id(),
            items_aggregated: 1 + i64::from(self.has(0)),
            aggregation_metadata: self.by.document(self.call.other),
            current_fsm_state: self.by.state(self.call.state),
            ..Default::default()
        }
    }

    fn get_bridge(&self) -> v1::GetBridgeStateRequest {
        v1::GetBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
        }
    }

    fn list_bridges(&self) -> v1::ListBridgeStatesRequest {
        v1::ListBridgeStatesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            ..Default::default()
        }
    }

    fn delete_bridge(&self) -> v1::DeleteBridgeStateRequest {
        v1::DeleteBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
            allow_missing: self.has(0),
        }
    }

    fn sum_bridges(&self) -> v1::GetBridgeStatsRequest {
        v1::GetBridgeStatsRequest {
            namespace: self.namespace(),
        }
    }

    fn node_id(&self) -> String {
        self.pools.nodes[self.call.thing].clone()
    }

    fn register(&self) -> v1::RegisterNodeRequest {
        v1::RegisterNodeRequest {
            namespace: self.namespace(),
            node_id: self.node_id(),
            node_type: self.by.name("type"),
            node_version: self.by.name("v1"),
            metadata: self.by.document(self.call.state),
            ..Default::default()
        }
    }

    fn heartbeat(&self, node_id: &str) -> v1::NodeHeartbeat {
        v1::NodeHeartbeat {
            node_id: node_id.into(),
            health_status: i32::from(self.call.variant % 4),
            metadata: self.by.document(self.call.state),
        }
    }

    fn beat(&self) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest {
            namespace: self.namespace(),
            heartbeat: Some(self.heartbeat(&self.node_id())),
        }
    }

    fn beat_all(&self) -> v1::BatchHeartbeatRequest {
        let nodes = self.pools.nodes.iter();
        v1::BatchHeartbeatRequest {
            namespace: self.namespace(),
            heartbeats: nodes.map(|node| self.heartbeat(node)).collect(),
        }
    }

    fn deregister(&self) -> v1::DeregisterNodeRequest {
        v1::DeregisterNodeRequest {
            namespace: self.namespace(),
            node_id: self.node_id(),
            allow_missing: self.has(0),
        }
    }

    fn get_node(&self) -> v1::GetNodeRequest {
        v1::GetNodeRequest {
            namespace: self.namespace(),
            node_id: self.node_id(),
        }
    }

    fn list_nodes(&self) -> v1::ListNodesRequest {
        v1::ListNodesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            ..Default::default()
        }
    }

    fn discover(&self) -> v1::DiscoverNodesRequest {
        v1::DiscoverNodesRequest {
            namespace: self.namespace(),
            node_type: self.by.name("type"),
            limit: 0,
        }
    }
}
