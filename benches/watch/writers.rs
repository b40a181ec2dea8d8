//! Writers: an open loop that makes transitions at a given rate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bridgebook::proto::v1::{
    BatchRecordTransitionsRequest, BatchRecordTransitionsResponse, NewTransition,
    RecordTransitionRequest, fsm_service_server::SERVICE_NAME, record_transition_result,
};
use h2::client::SendRequest;
use prost::{Message, bytes::Bytes};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    Result,
    answers::{Answers, numbered_id},
    call::{call, connect, frame},
};

/// The connections of the writers.
const CONNECTIONS: usize = 4;
/// How many calls a connection may have open. Those that exceed it are left out, and the rate that is
/// reached falls behind.
const MAX_OPEN: usize = 64;
/// The interval at which they send.
const TICK: Duration = Duration::from_millis(1);

/// The type of the entities. It has no machine.
pub const ENTITY_TYPE: &str = "task";

/// Writes transitions in turns to each namespace, and there to each entity.
pub struct Writers {
    /// The service.
    pub address: SocketAddr,
    /// Transitions per second.
    pub rate: u64,
    /// Transitions per call, of one namespace.
    pub batch: u64,
    /// The namespaces.
    pub namespaces: Vec<String>,
    /// The number of entities in each namespace.
    pub entities: u64,
}

/// Returns the id of the entity with this number in the namespace with this number.
pub fn entity_id(namespace: u64, entity: u64) -> Uuid {
    Uuid::from_u64_pair(namespace + 1, entity)
}

impl Writers {
    /// Returns the number of rows that they make at most.
    pub fn rows(&self, time: Duration) -> u64 {
        let seconds = time.as_secs_f64().ceil() as u64 + 1;
        self.rate * seconds + self.batch * CONNECTIONS as u64
    }

    /// Writes for `time`, and waits for all responses.
    pub async fn run(self, time: Duration, answers: &Arc<Answers>) -> Result<()> {
        let writers = Arc::new(self);
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let writer = Writer {
                connection: connect(writers.address).await?,
                writers: Arc::clone(&writers),
                next: Arc::clone(&next),
                answers: Arc::clone(answers),
                open: AtomicUsize::new(0),
            };
            tasks.spawn(Arc::new(writer).run(time));
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Returns the namespace and the moves of the call that begins with this row.
    fn moves(&self, first: u64) -> (String, Vec<NewTransition>) {
        let count = self.namespaces.len() as u64;
        let (turn, namespace) = (first / self.batch / count, first / self.batch % count);
        let name = usize::try_from(namespace)
            .ok()
            .and_then(|at| self.namespaces.get(at));
        let moves = (0..self.batch).map(|place| {
            let entity = (turn * self.batch + place) % self.entities;
            NewTransition {
                transition_id: numbered_id(first + place).to_string(),
                entity_type: ENTITY_TYPE.to_owned(),
                entity_id: entity_id(namespace, entity).to_string(),
                to_state: "RUNNING".to_owned(),
                transition_event: "progress".to_owned(),
                ..NewTransition::default()
            }
        });
        (name.cloned().unwrap_or_default(), moves.collect())
    }
}

/// One connection.
struct Writer {
    connection: SendRequest<Bytes>,
    writers: Arc<Writers>,
    /// The number of the next row.
    next: Arc<AtomicU64>,
    answers: Arc<Answers>,
    /// The calls that are open.
    open: AtomicUsize,
}

impl Writer {
    async fn run(self: Arc<Self>, time: Duration) -> Result<()> {
        let Writers { rate, batch, .. } = *self.writers;
        let calls_per_second = rate as f64 / batch as f64 / CONNECTIONS as f64;
        let begun = self.answers.elapsed();
        let mut calls = JoinSet::new();
        let mut due = 0.0;
        loop {
            let elapsed = self.answers.elapsed() - begun;
            if elapsed >= time {
                break;
            }
            while due < elapsed.as_secs_f64() * calls_per_second {
                due += 1.0;
                if self.open.load(Ordering::Relaxed) < MAX_OPEN {
                    self.open.fetch_add(1, Ordering::Relaxed);
                    calls.spawn(Arc::clone(&self).call());
                }
            }
            while let Some(ended) = calls.try_join_next() {
                ended??;
            }
            tokio::time::sleep(TICK).await;
        }
        while let Some(ended) = calls.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn call(self: Arc<Self>) -> Result<()> {
        let batch = self.writers.batch;
        let first = self.next.fetch_add(batch, Ordering::Relaxed);
        if first + batch > self.answers.capacity() {
            return Err("the writers made more rows than there is room for".into());
        }
        let (namespace, moves) = self.writers.moves(first);
        match batch {
            1 => {
                let request = RecordTransitionRequest {
                    namespace,
                    transition: moves.into_iter().next(),
                };
                self.send("RecordTransition", &request).await?;
                self.answers.answered(first..=first);
            }
            _ => {
                let request = BatchRecordTransitionsRequest {
                    namespace,
                    transitions: moves,
                };
                let response = self.send("BatchRecordTransitions", &request).await?;
                self.answers.answered(first..first + batch);
                check(BatchRecordTransitionsResponse::decode(response)?)?;
            }
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn send(&self, rpc: &str, message: &impl Message) -> Result<Bytes> {
        let uri = format!("http://{}/{SERVICE_NAME}/{rpc}", self.writers.address).parse()?;
        call(&self.connection, uri, None, frame(message)?).await
    }
}

/// Fails if a move was not made.
fn check(response: BatchRecordTransitionsResponse) -> Result<()> {
    for result in response.results {
        if let Some(record_transition_result::Result::Error(error)) = result.result {
            return Err(error.message.into());
        }
    }
    Ok(())
}
