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
    StartWorkflowRequest, TransitionWorkflowRequest, WorkflowState,
    workflow_service_client::WorkflowServiceClient,
};
use tonic::{Request, transport::Channel};

use crate::support::{
    Server, connect_database, count, eventually, new_id, own_cluster, send_signal, temp_dir,
};

/// How many callers write while things die.
const CALLERS: usize = 16;

/// What was acknowledged: workflows, and moves by their transition_id.
#[derive(Default)]
struct Acknowledged {
    workflows: Mutex<HashSet<String>>,
    moves: Mutex<HashSet<String>>,
}

impl Acknowledged {
    fn count(&self) -> usize {
        self.moves.lock().unwrap().len()
    }
}

/// Starts workflows and moves them, each call tried again with the same ids
/// until it is acknowledged, or until it is time to stop.
async fn write(channel: Channel, acknowledged: Arc<Acknowledged>, stop: Arc<AtomicBool>) {
    let mut client = WorkflowServiceClient::new(channel);
    while !stop.load(Ordering::Relaxed) {
        let start = StartWorkflowRequest {
            namespace: "kill".into(),
            correlation_id: new_id(),
            workflow_type: "kill".into(),
            id: new_id(),
            ..StartWorkflowRequest::default()
        };
        while client.start_workflow(limited(start.clone())).await.is_err() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        acknowledged
            .workflows
            .lock()
            .unwrap()
            .insert(start.id.clone());
        let transition = TransitionWorkflowRequest {
            namespace: "kill".into(),
            workflow_id: start.id,
            to_state: WorkflowState::Processing.into(),
            transition_id: new_id(),
            ..TransitionWorkflowRequest::default()
        };
        while client
            .transition_workflow(limited(transition.clone()))
            .await
            .is_err()
        {
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        acknowledged
            .moves
            .lock()
            .unwrap()
            .insert(transition.transition_id);
    }
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(2));
    request
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
    for (table, ids) in [
        ("workflow_executions", &acknowledged.workflows),
        ("fsm_transitions", &acknowledged.moves),
    ] {
        let ids: Vec<_> = ids
            .lock()
            .unwrap()
            .iter()
            .map(|id| format!("'{id}'"))
            .collect();
        let stored = format!(
            "SELECT count(*) FROM {table} WHERE id IN ({})",
            ids.join(",")
        );
        assert_eq!(
            count(&mut database, &stored).await,
            ids.len() as i64,
            "lost from {table}"
        );
    }
    let disagreeing =
        "SELECT count(*) FROM workflow_executions w WHERE current_state IS DISTINCT FROM
        (SELECT to_state FROM fsm_transitions WHERE entity_id = w.id ORDER BY seq DESC LIMIT 1)";
    assert_eq!(
        count(&mut database, disagreeing).await,
        0,
        "state and journal disagree"
    );
    let doubled = "SELECT count(*) FROM (SELECT FROM fsm_transitions
        GROUP BY entity_id, to_state HAVING count(*) > 1) doubled";
    assert_eq!(count(&mut database, doubled).await, 0, "moves made twice");
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
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| tokio::spawn(write(channel.clone(), acknowledged.clone(), stop.clone())))
        .collect();
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
    for caller in callers {
        caller.await.unwrap();
    }
    compare(&url, &acknowledged).await;
}
