//! Which role a call needs, at least.

use super::token::Role;
use crate::proto::Rpc;

/// The role that an RPC needs. An RPC that is added to the contract does not compile
/// without its line here.
#[must_use]
pub fn needed(rpc: Rpc) -> Role {
    match rpc {
        Rpc::WorkflowServiceGetWorkflow
        | Rpc::WorkflowServiceListWorkflows
        | Rpc::WorkflowServiceListSteps
        | Rpc::WorkflowServiceListStamps
        | Rpc::FsmServiceGetMachine
        | Rpc::FsmServiceListMachines
        | Rpc::FsmServiceGetEntity
        | Rpc::FsmServiceListEntities
        | Rpc::FsmServiceListTransitions
        | Rpc::FsmServiceGetTransitionStats
        | Rpc::BridgeStateServiceGetBridgeState
        | Rpc::BridgeStateServiceListBridgeStates
        | Rpc::BridgeStateServiceGetBridgeStats
        | Rpc::RegistryServiceGetNode
        | Rpc::RegistryServiceListNodes
        | Rpc::RegistryServiceDiscoverNodes => Role::Reader,

        Rpc::WorkflowServiceStartWorkflow
        | Rpc::WorkflowServiceTransitionWorkflow
        | Rpc::WorkflowServiceDeleteWorkflow
        | Rpc::WorkflowServiceRecordStep
        | Rpc::WorkflowServiceBatchRecordSteps
        | Rpc::WorkflowServiceRecordStamp
        | Rpc::WorkflowServiceBatchRecordStamps
        | Rpc::FsmServicePutMachine
        | Rpc::FsmServiceDeleteMachine
        | Rpc::FsmServiceRecordTransition
        | Rpc::FsmServiceBatchRecordTransitions
        | Rpc::BridgeStateServiceUpsertBridgeState
        | Rpc::BridgeStateServiceAccumulateBridgeState
        | Rpc::BridgeStateServiceDeleteBridgeState
        | Rpc::RegistryServiceRegisterNode
        | Rpc::RegistryServiceHeartbeat
        | Rpc::RegistryServiceBatchHeartbeat
        | Rpc::RegistryServiceDeregisterNode => Role::Writer,

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
        | Rpc::AdminServiceDeleteRetentionPolicy => Role::Admin,
    }
}
