//! What is acknowledged is stored, whatever dies when.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, NewTransition, RecordTransitionRequest, StartWorkflowRequest,
    TransitionWorkflowRequest, WorkflowState,
    bridge_state_service_client::BridgeStateServiceClient, fsm_service_client::FsmServiceClient,
    workflow_service_client::WorkflowServiceClient,
};
use futures_util::future::join_all;
use tonic::{Code, Request, Response, Status, transport::Channel};

use crate::support::{
    Server, connect_database, count, eventually, new_id, own_cluster, send_signal, temp_dir,
};

/// How many callers write while things die.
const CALLERS: usize = 16;

/// What a caller hears while things die. An answer that is cut off has no status.
const MAY_PASS: [Code; 4] = [
    Code::Unavailable,
    Code::DeadlineExceeded,
    Code::Cancelled,
    Code::Unknown,
];

/// What was acknowledged, by the ids that the callers chose.
#[derive(Default)]
struct Acknowledged {
    workflows: Mutex<HashSet<String>>,
    moves: Mutex<HashSet<String>>,
    batches: Mutex<HashSet<String>>,
}

impl Acknowledged {
    fn count(&self) -> usize {
        self.moves.lock().unwrap().len()
    }
}

/// Writes, each call tried again with the same ids until it is acknowledged.
struct Caller {
    channel: Channel,
    /// An entity and a bridge that all callers change.
    shared: [String; 2],
    acknowledged: Arc<Acknowledged>,
    stop: Arc<AtomicBool>,
}

impl Caller {
    /// Writes until it is time to stop.
    async fn write(self) {
        while self.write_once().await.is_some() {}
    }

    /// Starts a workflow and moves it, moves the entity, adds a batch to the
    /// bridge; `None` if it is time to stop.
    async fn write_once(&self) -> Option<()> {
        let workflow_id = new_id();
        let start = StartWorkflowRequest {
            namespace: "kill".into(),
            correlation_id: new_id(),
            workflow_type: "kill".into(),
            id: workflow_id.clone(),
            ..StartWorkflowRequest::default()
        };
        let mut workflows = WorkflowServiceClient::new(self.channel.clone());
        self.insist(start, async |request| {
            workflows.start_workflow(request).await
        })
        .await?;
        remember(&self.acknowledged.workflows, &workflow_id);

        let move_id = new_id();
        let transition = TransitionWorkflowRequest {
            namespace: "kill".into(),
            workflow_id,
            to_state: WorkflowState::Processing.into(),
            transition_id: move_id.clone(),
            ..TransitionWorkflowRequest::default()
        };
        self.insist(transition, async |request| {
            workflows.transition_workflow(request).await
        })
        .await?;
        remember(&self.acknowledged.moves, &move_id);

        let [entity_id, bridge_id] = self.shared.clone();
        let move_id = new_id();
        let transition = RecordTransitionRequest {
            namespace: "kill".into(),
            transition: Some(NewTransition {
                transition_id: move_id.clone(),
                entity_type: "valve".into(),
                entity_id,
                // A state of its own, so that the journal shows who came after whom.
                to_state: format!("S-{move_id}"),
                transition_event: "turn".into(),
                ..NewTransition::default()
            }),
        };
        let mut machines = FsmServiceClient::new(self.channel.clone());
        self.insist(transition, async |request| {
            machines.record_transition(request).await
        })
        .await?;
        remember(&self.acknowledged.moves, &move_id);

        let batch_id = new_id();
        let batch = AccumulateBridgeStateRequest {
            namespace: "kill".into(),
            bridge_id,
            batch_id: batch_id.clone(),
            workflows_processed: 1,
            items_aggregated: 3,
            current_fsm_state: "ACTIVE".into(),
            ..AccumulateBridgeStateRequest::default()
        };
        let mut bridges = BridgeStateServiceClient::new(self.channel.clone());
        self.insist(batch, async |request| {
            bridges.accumulate_bridge_state(request).await
        })
        .await?;
        remember(&self.acknowledged.batches, &batch_id);
        Some(())
    }

    /// Calls until it is acknowledged, or, with `None`, until it is time to stop.
    async fn insist<T: Clone, A>(
        &self,
        message: T,
        mut call: impl AsyncFnMut(Request<T>) -> Result<Response<A>, Status>,
    ) -> Option<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let mut request = Request::new(message.clone());
            request.set_timeout(Duration::from_secs(2));
            match call(request).await {
                Ok(_) => return Some(()),
                Err(status) => assert!(MAY_PASS.contains(&status.code()), "{status:?}"),
            }
        }
        None
    }
}

fn remember(ids: &Mutex<HashSet<String>>, id: &str) {
    ids.lock().unwrap().insert(id.to_owned());
}

/// Waits until this many more moves are acknowledged.
async fn progress(acknowledged: &Acknowledged) {
    let before = acknowledged.count();
    eventually("writes are acknowledged", || async {
        (acknowledged.count() > before + 50).then_some(())
    })
    .await;
}

/// Compares what was acknowledged with what is stored.
async fn compare(url: &str, acknowledged: &Acknowledged) {
    let mut database = connect_database(url).await;
    for (table, id, ids) in [
        ("workflow_executions", "id", &acknowledged.workflows),
        ("fsm_transitions", "id", &acknowledged.moves),
        ("bridge_batches", "batch_id", &acknowledged.batches),
    ] {
        let ids: Vec<_> = ids
            .lock()
            .unwrap()
            .iter()
            .map(|id| format!("'{id}'"))
            .collect();
        let stored = format!(
            "SELECT count(*) FROM {table} WHERE {id} IN ({})",
            ids.join(",")
        );
        assert_eq!(
            count(&mut database, &stored).await,
            ids.len() as i64,
            "lost from {table}"
        );
    }
    for (wrong, what) in [
        (
            "SELECT count(*) FROM
                (SELECT id, current_state FROM workflow_executions
                  UNION ALL SELECT entity_id, current_state FROM fsm_entities) entities (entity, state)
              WHERE state IS DISTINCT FROM
                (SELECT to_state FROM fsm_transitions WHERE entity_id = entity ORDER BY seq DESC LIMIT 1)",
            "state and journal disagree",
        ),
        (
            "SELECT count(*) FROM (SELECT FROM fsm_transitions
                GROUP BY entity_id, to_state HAVING count(*) > 1) doubled",
            "moves made twice",
        ),
        (
            "SELECT count(*) FROM (SELECT from_state, lag(to_state) OVER moves AS before
                FROM fsm_transitions WINDOW moves AS (PARTITION BY entity_id ORDER BY seq)) moves
              WHERE from_state IS DISTINCT FROM before",
            "moves that do not follow on each other",
        ),
        (
            "SELECT count(*) FROM fsm_entities e WHERE revision <>
                (SELECT count(*) FROM fsm_transitions t WHERE t.entity_id = e.entity_id)",
            "revisions that do not count the moves",
        ),
        (
            "SELECT count(*) FROM bridge_states b
               JOIN LATERAL (SELECT count(*) AS batches FROM bridge_batches l
                              WHERE l.bridge_id = b.bridge_id) l ON true
              WHERE total_workflows_processed <> batches OR total_items_aggregated <> 3 * batches",
            "totals that are not those of the batches",
        ),
    ] {
        assert_eq!(count(&mut database, wrong).await, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_service_and_postgresql_are_killed() {
    let dir = temp_dir();
    let mut cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let arguments = ["--database-url", url.as_str(), "--migrate"];
    let mut server = Server::spawn(&arguments);
    let channel = server.serving().await;
    let acknowledged = Arc::new(Acknowledged::default());
    let stop = Arc::new(AtomicBool::new(false));
    let shared = [new_id(), new_id()];
    let callers = (0..CALLERS).map(|_| Caller {
        channel: channel.clone(),
        shared: shared.clone(),
        acknowledged: acknowledged.clone(),
        stop: stop.clone(),
    });
    let callers = join_all(callers.map(Caller::write));
    let kills = async {
        for _ in 0..2 {
            progress(&acknowledged).await;
            server.kill();
            server = Server::spawn_on(server.address, &arguments);
            progress(&acknowledged).await;
            send_signal("KILL", cluster.pid());
            // Reports the crash, which is what we came for.
            let _ = cluster.crashed().await;
            drop(cluster);
            cluster = own_cluster(&dir).await;
            progress(&acknowledged).await;
        }
        stop.store(true, Ordering::Relaxed);
        cluster
    };
    let (_, _cluster) = tokio::join!(callers, kills);
    compare(&url, &acknowledged).await;
}
