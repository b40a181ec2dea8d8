//! Batches that read more than one batch may.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bridgebook::{
    db::{
        Database, DbError,
        batch::{Answers, Batcher, Operation, reservation::BATCH_BYTES},
    },
    ops::metrics::Metrics,
    proto::v1::{StartWorkflowRequest, WorkflowState},
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{App, Schema, database_address, value};

/// The size of a document, of which ten exceed what a batch reads.
const LARGE: usize = 900_000;
const COUNT: usize = 40;

/// Gives each workflow a document with its id and much text.
async fn grow(app: &App) {
    let grow = format!(
        "UPDATE workflow_executions
            SET metadata = jsonb_build_object('id', id, 'text', repeat('x', {LARGE}))"
    );
    let mut database = app.schema.connect().await;
    database.batch_execute(&grow).await.unwrap();
}

#[tokio::test]
async fn concurrent_transitions_of_large_workflows_each_move_their_workflow() {
    let (app, tenant) = App::with_tenant().await;
    let workflows = join_all((0..COUNT).map(|_| tenant.start())).await;
    grow(&app).await;
    let moves = workflows
        .iter()
        .map(|workflow| tenant.transition(tenant.to(workflow, WorkflowState::Processing)));
    for (moved, workflow) in join_all(moves).await.into_iter().zip(&workflows) {
        assert!(moved.applied);
        let moved = moved.workflow.unwrap();
        assert_eq!(moved.current_state(), WorkflowState::Processing);
        assert_eq!(value(moved.metadata)["id"], json!(workflow.id));
    }
    let moves = "SELECT count(*) FROM fsm_transitions WHERE to_state = 'PROCESSING'";
    assert_eq!(app.schema.count(moves).await, COUNT as i64);
}

#[tokio::test]
async fn concurrent_retries_of_starts_each_get_their_large_workflow() {
    let (app, tenant) = App::with_tenant().await;
    let requests: Vec<_> = (0..COUNT).map(|_| tenant.new_workflow()).collect();
    let start = async |request: &StartWorkflowRequest| {
        let started = tenant.client.clone().start_workflow(request.clone()).await;
        let started = started.unwrap().into_inner();
        (started.created, started.workflow.unwrap())
    };
    let started = join_all(requests.iter().map(start)).await;
    grow(&app).await;
    // Those of one workflow are in the same batch, too.
    let requests = requests.iter().flat_map(|request| [request; 3]);
    let again = join_all(requests.map(start)).await;
    let started = started
        .into_iter()
        .flat_map(|started| [started.clone(), started.clone(), started]);
    for ((created, again), (was_created, workflow)) in again.into_iter().zip(started) {
        assert!(was_created && !created);
        assert_eq!(again.id, workflow.id);
        assert_eq!(value(again.metadata)["id"], json!(workflow.id));
    }
}

/// Reads one item of each batch, which has the size of what a batch reads.
struct ReadLarge;

/// The sizes of all answers, and of those that their callers have dropped.
static READ: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// What all batches may read together.
const ALL_BYTES: usize = 144 * 1024 * 1024;

impl Operation for ReadLarge {
    const NAME: &'static str = "ReadLarge";
    const READS_DOCUMENTS: bool = true;
    type Item = usize;
    type Answer = usize;
    type Key = usize;

    fn key(item: &Self::Item) -> usize {
        *item
    }

    fn tenant(_item: &Self::Item) -> &str {
        ""
    }

    fn run<'a>(
        _: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<usize>, DbError>> {
        Box::pin(async move {
            let read = READ.fetch_add(BATCH_BYTES, Ordering::SeqCst) + BATCH_BYTES;
            assert!(read - DROPPED.load(Ordering::SeqCst) <= ALL_BYTES);
            let answers = items.iter().enumerate();
            Ok(answers
                .map(|(index, item)| (index == 0).then_some(Ok(**item)))
                .collect())
        })
    }

    fn bytes_read(_answer: &usize) -> usize {
        BATCH_BYTES
    }
}

#[tokio::test]
async fn batches_wait_until_what_earlier_ones_read_is_dropped() {
    let schema = Schema::create().await;
    let database = Database::new(
        &database_address(&schema.url()),
        4,
        &Metrics::new().unwrap(),
    );
    database.mark_ready();
    let batcher = Arc::new(Batcher::<ReadLarge>::new(&database));
    let (sender, mut answers) = mpsc::unbounded_channel();
    for item in 0..COUNT {
        let (batcher, sender) = (batcher.clone(), sender.clone());
        tokio::spawn(async move { sender.send((item, batcher.submit_held(item).await)) });
    }
    let mut held = VecDeque::new();
    for _ in 0..COUNT {
        let (item, answer) = answers.recv().await.unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.answer, item);
        held.push_back(answer);
        // As many as fit while another batch has reserved the memory of two.
        if held.len() == ALL_BYTES / BATCH_BYTES - 1 {
            DROPPED.fetch_add(BATCH_BYTES, Ordering::SeqCst);
            held.pop_front();
        }
    }
}
