//! A caller: uses every RPC that writes, and retries each call until it is acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bridgebook::{
    client::{self, Client, retry::Retries},
    proto::v1::{
        BatchHeartbeatRequest, BatchRecordStampsRequest, BatchRecordStepsRequest,
        BatchRecordTransitionsRequest, DeleteBridgeStateRequest, DeleteMachineRequest,
        DeleteWorkflowRequest, DeregisterNodeRequest, HeartbeatRequest, RecordStampRequest,
        RecordStepRequest, RecordTransitionRequest, WorkflowState, heartbeat_result,
        record_stamp_result, record_step_result, record_transition_result,
    },
};
use prost::Message;
use tonic::{Response, Status};
use uuid::Uuid;

use crate::{
    Result,
    environment::Environment,
    faults::Recoveries,
    ledger::Ledger,
    requests::{self, Tenant},
};

/// The retry limit of a call: far longer than any outage in a run.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// One round in this many deletes the rows that it created.
const DELETE_EVERY: usize = 4;

/// A caller with its own connection.
pub struct Caller {
    client: Client,
    tenant: Tenant,
    recoveries: Recoveries,
    stop: Arc<AtomicBool>,
    ledger: Ledger,
    /// The rows that only this caller changes: an entity and its state, a bridge, a node.
    entity: (Uuid, Option<String>),
    bridge: Uuid,
    node: String,
    round: usize,
}

impl Caller {
    /// Creates a caller.
    pub fn new(
        number: usize,
        environment: &Environment,
        tenant: &Tenant,
        recoveries: Recoveries,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        Ok(Caller {
            client: client::connect_lazily(&environment.front.address.to_string())?,
            tenant: tenant.clone(),
            recoveries,
            stop,
            ledger: Ledger::default(),
            entity: (Uuid::now_v7(), None),
            bridge: Uuid::now_v7(),
            node: format!("node-{number}"),
            round: 0,
        })
    }

    /// Writes until `stop` is set. Returns the acknowledged writes.
    pub async fn run(mut self) -> Ledger {
        self.register(&self.node.clone()).await;
        while !self.stop.load(Ordering::Relaxed) {
            self.round += 1;
            let deletes = self.round.is_multiple_of(DELETE_EVERY);
            self.workflow(deletes).await;
            self.moves().await;
            self.machine(deletes).await;
            self.bridges(deletes).await;
            self.nodes(deletes).await;
        }
        self.ledger.nodes.push(self.node);
        self.ledger.bridges.push((self.bridge, self.round as i64));
        if let (entity, Some(state)) = self.entity {
            self.ledger.entities.push((entity, state));
        }
        self.ledger
    }

    async fn workflow(&mut self, deletes: bool) {
        let id = Uuid::now_v7();
        let request = self.tenant.start(id);
        self.acknowledge("StartWorkflow", async |client| {
            client.workflows().start_workflow(request.clone()).await
        })
        .await;
        self.steps(id, deletes).await;
        self.stamps(id).await;
        for state in [WorkflowState::Processing, WorkflowState::Completed] {
            let move_id = Uuid::now_v7();
            let request = self.tenant.transition(id, move_id, state);
            self.acknowledge("TransitionWorkflow", async |client| {
                client
                    .workflows()
                    .transition_workflow(request.clone())
                    .await
            })
            .await;
            self.ledger.moves.push(move_id);
        }
        if !deletes {
            self.ledger.workflows.push((id, "COMPLETED"));
            return;
        }
        let request = DeleteWorkflowRequest {
            namespace: self.tenant.namespace.into(),
            workflow_id: id.to_string(),
            allow_missing: true,
        };
        self.acknowledge("DeleteWorkflow", async |client| {
            client.workflows().delete_workflow(request.clone()).await
        })
        .await;
        self.ledger.deleted_workflows.push(id);
    }

    async fn steps(&mut self, workflow: Uuid, deletes: bool) {
        let ids: [Uuid; 3] = std::array::from_fn(|_| Uuid::now_v7());
        let [first, others @ ..] = ids;
        let request = RecordStepRequest {
            namespace: self.tenant.namespace.into(),
            step: Some(requests::step(workflow, first, 1)),
        };
        self.acknowledge("RecordStep", async |client| {
            client.workflows().record_step(request.clone()).await
        })
        .await;
        let steps = others.iter().zip(2..);
        let request = BatchRecordStepsRequest {
            namespace: self.tenant.namespace.into(),
            steps: steps
                .map(|(id, order)| requests::step(workflow, *id, order))
                .collect(),
        };
        self.acknowledge("BatchRecordSteps", async |client| {
            let response = client
                .workflows()
                .batch_record_steps(request.clone())
                .await?;
            first_error(response, |response| {
                let mut results = response.results.into_iter();
                results.find_map(|it| match it.result {
                    Some(record_step_result::Result::Error(error)) => Some(error),
                    _ => None,
                })
            })
        })
        .await;
        if !deletes {
            self.ledger.steps.extend(ids);
        }
    }

    async fn stamps(&mut self, workflow: Uuid) {
        let ids: [Uuid; 3] = std::array::from_fn(|_| Uuid::now_v7());
        let [first, others @ ..] = ids;
        let request = RecordStampRequest {
            namespace: self.tenant.namespace.into(),
            stamp: Some(requests::stamp(workflow, first)),
        };
        self.acknowledge("RecordStamp", async |client| {
            client.workflows().record_stamp(request.clone()).await
        })
        .await;
        let request = BatchRecordStampsRequest {
            namespace: self.tenant.namespace.into(),
            stamps: others.map(|id| requests::stamp(workflow, id)).into(),
        };
        self.acknowledge("BatchRecordStamps", async |client| {
            let response = client
                .workflows()
                .batch_record_stamps(request.clone())
                .await?;
            first_error(response, |response| {
                let mut results = response.results.into_iter();
                results.find_map(|it| match it.result {
                    Some(record_stamp_result::Result::Error(error)) => Some(error),
                    _ => None,
                })
            })
        })
        .await;
        self.ledger.stamps.extend(ids);
    }

    /// Moves a shared entity, and twice the caller's own entity.
    async fn moves(&mut self) {
        let id = Uuid::now_v7();
        let Some(entity) = fastrand::choice(&self.tenant.entities).copied() else {
            return;
        };
        let request = RecordTransitionRequest {
            namespace: self.tenant.namespace.into(),
            transition: Some(requests::entity_move(entity, id, None)),
        };
        self.acknowledge("RecordTransition", async |client| {
            client.fsm().record_transition(request.clone()).await
        })
        .await;
        self.ledger.moves.push(id);

        let (entity, state) = self.entity.clone();
        let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
        let between = Some(requests::state_of(first));
        let request = BatchRecordTransitionsRequest {
            namespace: self.tenant.namespace.into(),
            transitions: vec![
                requests::entity_move(entity, first, state),
                requests::entity_move(entity, second, between),
            ],
        };
        self.acknowledge("BatchRecordTransitions", async |client| {
            let response = client
                .fsm()
                .batch_record_transitions(request.clone())
                .await?;
            first_error(response, |response| {
                let mut results = response.results.into_iter();
                results.find_map(|it| match it.result {
                    Some(record_transition_result::Result::Error(error)) => Some(error),
                    _ => None,
                })
            })
        })
        .await;
        self.ledger.moves.extend([first, second]);
        self.entity.1 = Some(requests::state_of(second));
    }

    async fn machine(&mut self, deletes: bool) {
        let entity_type = format!("t-{}", Uuid::now_v7());
        for last in ["DONE", "OVER"] {
            let request = self.tenant.machine(&entity_type, last);
            self.acknowledge("PutMachine", async |client| {
                client.fsm().put_machine(request.clone()).await
            })
            .await;
        }
        if !deletes {
            self.ledger.machines.push((entity_type, 2));
            return;
        }
        let request = DeleteMachineRequest {
            namespace: self.tenant.namespace.into(),
            entity_type: entity_type.clone(),
            allow_missing: true,
        };
        self.acknowledge("DeleteMachine", async |client| {
            client.fsm().delete_machine(request.clone()).await
        })
        .await;
        self.ledger.deleted_machines.push(entity_type);
    }

    async fn bridges(&mut self, deletes: bool) {
        let request = self.tenant.totals(self.bridge, self.round as i64);
        self.acknowledge("UpsertBridgeState", async |client| {
            client.bridges().upsert_bridge_state(request.clone()).await
        })
        .await;
        let Some(bridge) = fastrand::choice(&self.tenant.bridges).copied() else {
            return;
        };
        let (batch, items) = (Uuid::now_v7(), fastrand::i64(1..100));
        let request = self.tenant.batch(bridge, batch, items);
        self.acknowledge("AccumulateBridgeState", async |client| {
            client
                .bridges()
                .accumulate_bridge_state(request.clone())
                .await
        })
        .await;
        self.ledger.batches.push((bridge, batch, items));
        if !deletes {
            return;
        }
        let bridge = Uuid::now_v7();
        let request = self.tenant.totals(bridge, 1);
        self.acknowledge("UpsertBridgeState", async |client| {
            client.bridges().upsert_bridge_state(request.clone()).await
        })
        .await;
        let request = DeleteBridgeStateRequest {
            namespace: self.tenant.namespace.into(),
            bridge_id: bridge.to_string(),
            allow_missing: true,
        };
        self.acknowledge("DeleteBridgeState", async |client| {
            client.bridges().delete_bridge_state(request.clone()).await
        })
        .await;
        self.ledger.deleted_bridges.push(bridge);
    }

    async fn nodes(&mut self, deletes: bool) {
        let heartbeat = requests::heartbeat(&self.node);
        let request = HeartbeatRequest {
            namespace: self.tenant.namespace.into(),
            heartbeat: Some(heartbeat.clone()),
        };
        self.acknowledge("Heartbeat", async |client| {
            client.registry().heartbeat(request.clone()).await
        })
        .await;
        let request = BatchHeartbeatRequest {
            namespace: self.tenant.namespace.into(),
            heartbeats: vec![heartbeat],
        };
        self.acknowledge("BatchHeartbeat", async |client| {
            let response = client.registry().batch_heartbeat(request.clone()).await?;
            first_error(response, |response| {
                let mut results = response.results.into_iter();
                results.find_map(|it| match it.result {
                    Some(heartbeat_result::Result::Error(error)) => Some(error),
                    _ => None,
                })
            })
        })
        .await;
        if !deletes {
            return;
        }
        let node_id = Uuid::now_v7().to_string();
        self.register(&node_id).await;
        let request = DeregisterNodeRequest {
            namespace: self.tenant.namespace.into(),
            node_id: node_id.clone(),
            allow_missing: true,
        };
        self.acknowledge("DeregisterNode", async |client| {
            client.registry().deregister_node(request.clone()).await
        })
        .await;
        self.ledger.deleted_nodes.push(node_id);
    }

    async fn register(&mut self, node_id: &str) {
        let request = self.tenant.node(node_id);
        self.acknowledge("RegisterNode", async |client| {
            client.registry().register_node(request.clone()).await
        })
        .await;
    }

    /// Retries a call until it is acknowledged.
    async fn acknowledge<T>(
        &mut self,
        rpc: &'static str,
        call: impl AsyncFn(&Client) -> Result<Response<T>, Status>,
    ) {
        let mut retries = Retries::new(RETRY_TIMEOUT);
        loop {
            let begun = Instant::now();
            let status = match call(&self.client).await {
                Ok(_) => {
                    self.recoveries.acknowledged(begun);
                    return self.ledger.count(rpc);
                }
                Err(status) => status,
            };
            match retries.pause_after(&status) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return self.ledger.refused.push(format!("{rpc}: {status}")),
            }
        }
    }
}

/// Fails with the first error among the items of a batch, so that the batch is retried.
fn first_error<T>(
    response: Response<T>,
    failed: impl Fn(T) -> Option<tonic_types::pb::Status>,
) -> Result<Response<()>, Status> {
    let Some(error) = failed(response.into_inner()) else {
        return Ok(Response::new(()));
    };
    let details = error.encode_to_vec().into();
    Err(Status::with_details(
        error.code.into(),
        error.message,
        details,
    ))
}
