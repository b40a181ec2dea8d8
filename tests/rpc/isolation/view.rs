//! All that a tenant can see.

use bridgebook::proto::{Rpc, v1};
use futures_util::future::join_all;
use prost::Message;
use tonic::transport::Channel;

use super::{
    Heard,
    calls::{Call, Pools, Tenant},
    send,
};

/// The answers to every question that a tenant can ask, with the questions.
pub type View = Vec<(Rpc, String, Heard)>;

/// Asks everything.
pub async fn look(channel: &Channel, tenant: &Tenant, pools: &Pools) -> View {
    let questions = Rpc::ALL
        .iter()
        .flat_map(|rpc| questions(*rpc, tenant, pools));
    let answers = questions.map(|(rpc, what, request)| async move {
        let heard = send(channel, rpc, request).await;
        (rpc, what, heard)
    });
    join_all(answers).await
}

/// What has changed between two looks; refusals are the same if code and text are.
pub fn difference(before: &View, after: &View) -> Option<String> {
    let said = |heard: &Heard| match heard {
        Ok(answer) => Ok(answer.clone()),
        Err(status) => Err((status.code(), status.message().to_owned())),
    };
    let mut pairs = before.iter().zip(after);
    let (old, new) = pairs.find(|(old, new)| said(&old.2) != said(&new.2))?;
    Some(format!("{old:?} is now {new:?}"))
}

/// How to ask all that an RPC can answer; nothing if it writes.
fn questions(rpc: Rpc, tenant: &Tenant, pools: &Pools) -> Vec<(Rpc, String, Vec<u8>)> {
    let numbers: &[(usize, usize, u8)] = match rpc {
        // By id and by correlation id.
        Rpc::WorkflowServiceGetWorkflow => &[
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (0, 0, 1),
            (1, 0, 1),
            (2, 0, 1),
        ],
        // The current machine, and the first.
        Rpc::FsmServiceGetMachine => &[
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (0, 0, 1),
            (1, 0, 1),
            (2, 0, 1),
        ],
        Rpc::FsmServiceGetEntity => &[
            (0, 0, 0),
            (0, 1, 0),
            (0, 2, 0),
            (1, 0, 0),
            (1, 1, 0),
            (1, 2, 0),
        ],
        Rpc::WorkflowServiceListSteps | Rpc::BridgeStateServiceGetBridgeState => {
            &[(0, 0, 0), (1, 0, 0), (2, 0, 0)]
        }
        Rpc::WorkflowServiceListStamps => &[(0, 0, 0), (0, 0, 1), (1, 0, 1), (2, 0, 1)],
        Rpc::FsmServiceListEntities => &[(0, 0, 0), (1, 0, 0)],
        Rpc::FsmServiceListTransitions | Rpc::FsmServiceGetTransitionStats => {
            &[(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)]
        }
        Rpc::WorkflowServiceListWorkflows
        | Rpc::FsmServiceListMachines
        | Rpc::BridgeStateServiceListBridgeStates
        | Rpc::BridgeStateServiceGetBridgeStats => &[(0, 0, 0)],
        Rpc::RegistryServiceListNodes => return vec![own_nodes(tenant)],
        // Of nodes a tenant may see what others do, but to its own.
        Rpc::RegistryServiceGetNode | Rpc::RegistryServiceDiscoverNodes => &[],
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
        | Rpc::RegistryServiceDeregisterNode => &[],
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
        | Rpc::AdminServiceDeleteRetentionPolicy => &[],
    };
    let calls = numbers.iter().map(|(thing, other, variant)| Call {
        by: 0,
        rpc,
        thing: *thing,
        other: *other,
        state: 0,
        variant: *variant,
        token: None,
        page_size: 1000,
    });
    let asked = calls.filter_map(|call| {
        let request = call.request(tenant, pools)?;
        Some((
            rpc,
            format!("{:?}", (call.thing, call.other, call.variant)),
            request,
        ))
    });
    asked.collect()
}

fn own_nodes(tenant: &Tenant) -> (Rpc, String, Vec<u8>) {
    let request = v1::ListNodesRequest {
        namespace: tenant.namespace.clone(),
        owner: tenant.namespace.clone(),
        ..Default::default()
    };
    let rpc = Rpc::RegistryServiceListNodes;
    (rpc, "own".into(), request.encode_to_vec())
}
