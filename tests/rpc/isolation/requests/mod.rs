//! The requests of all RPCs that tenants make, a file for each service.

mod bridge_state;
mod fsm;
mod registry;
mod workflow;

use bridgebook::proto::Rpc;
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
            | Rpc::AdminServiceRevokeToken
            | Rpc::AdminServiceSetRetentionPolicy
            | Rpc::AdminServiceListRetentionPolicies
            | Rpc::ServerServiceGetServerInfo
            | Rpc::AdminServiceDeleteRetentionPolicy => return None,
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
}
