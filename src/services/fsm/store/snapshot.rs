//! The present states of a namespace, from one snapshot of the database.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;
use tokio::{
    sync::mpsc::{self, error::SendTimeoutError},
    time::Instant,
};

use crate::{
    db::{
        Database, DbError, Owner, Query,
        feed::{Committed, Following},
        planner::raw_statement,
    },
    domain::error::{Error, Result, WatchEnd, internal},
    services::{fsm::model::PresentState, registry::model::NodeId},
};

/// Maximum number of states in a part. Parts that wait for the client are outside of every memory budget,
/// and one token can have thousands of streams. 250 states are some 30 KB.
const PART: usize = 250;
/// The number of parts that are read before the client takes them: one with states, and the end. So a
/// query for no more states than a part has ends without waiting for the client.
const PARTS_AHEAD: usize = 2;
/// How long the query waits for a client that takes nothing. It holds a database connection meanwhile.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// How much of that time a client regains with each part that it takes: 2000 states a second, some 100 KB,
/// are enough. A client with a window of 64 KiB and a round trip of 0.2 s takes 6000, and without this
/// would never get a snapshot of 50,000.
const GAIN: Duration = Duration::from_millis(125);

raw_statement! {
/// Selects the transactions of the snapshot, and the states in it.
const STATES(Text, Nullable<Text>, Nullable<Uuid>, Array<Text>) = "
    SELECT NULL AS entity_type, NULL::uuid AS entity_id, NULL AS node_id,
           pg_current_snapshot()::text AS current_state,
           coalesce((SELECT xid_offset FROM journal_cluster), 0) AS xid_offset
     UNION ALL
    SELECT e.entity_type, e.entity_id, NULL, e.current_state, 0
      FROM fsm_entities e
     WHERE e.namespace = $1 AND ($2 IS NULL OR e.entity_type = $2)
       AND ($3 IS NULL OR e.entity_id = $3)
     UNION ALL
    SELECT 'workflow', w.id, NULL, w.current_state, 0
      FROM workflow_executions w
     WHERE w.namespace = $1 AND w.current_state = ANY ($4) AND ($2 IS NULL OR $2 = 'workflow')
       AND ($3 IS NULL OR w.id = $3)
     UNION ALL
    SELECT 'bridge', b.bridge_id, NULL, b.current_fsm_state, 0
      FROM bridge_states b
     WHERE b.namespace = $1 AND ($2 IS NULL OR $2 = 'bridge')
       AND ($3 IS NULL OR b.bridge_id = $3)
     UNION ALL
    SELECT 'node', NULL, n.node_id, n.health_status, 0
      FROM node_registrations n
     WHERE $1 = 'bridgebook.registry' AND ($2 IS NULL OR $2 = 'node')";
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = Nullable<Text>)]
    entity_type: Option<String>,
    #[diesel(sql_type = Nullable<Uuid>)]
    entity_id: Option<uuid::Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    node_id: Option<String>,
    #[diesel(sql_type = Text)]
    current_state: String,
    #[diesel(sql_type = BigInt)]
    xid_offset: i64,
}

/// A part of a snapshot.
#[derive(Debug)]
pub enum SnapshotPart {
    /// States.
    States(Vec<PresentState>),
    /// The transactions that the snapshot contains. Comes last.
    Committed(Committed),
}

/// The parts of a snapshot. Ends after the first error.
pub type SnapshotParts = mpsc::Receiver<Result<SnapshotPart>>;

/// Reads the present states that a reader wants, in the background.
pub fn read_snapshot(
    database: &Database,
    following: Following,
    workflow_states: Vec<String>,
) -> SnapshotParts {
    let (sender, parts) = mpsc::channel(PARTS_AHEAD);
    let database = database.clone();
    let read = ReadStates {
        following,
        workflow_states,
        sender: sender.clone(),
        has_sent: AtomicBool::new(false),
    };
    tokio::spawn(async move {
        let error = match database.run(&read).await {
            Ok(ReadEnd::Complete | ReadEnd::Gone) => return,
            Ok(ReadEnd::TooSlow) => Error::Watch(WatchEnd::TooSlow { position: None }),
            Err(error) => error,
        };
        // The client may have left.
        let _ = sender.send(Err(error)).await;
    });
    parts
}

struct ReadStates {
    following: Following,
    workflow_states: Vec<String>,
    sender: mpsc::Sender<Result<SnapshotPart>>,
    /// Whether a part was sent. The rest of it is in no other snapshot.
    has_sent: AtomicBool,
}

/// How the query ends.
enum ReadEnd {
    /// All rows are read.
    Complete,
    /// The client has gone.
    Gone,
    /// The client does not take the parts.
    TooSlow,
}

impl Query for ReadStates {
    type Answer = ReadEnd;

    fn owner(&self) -> Owner {
        self.following.owner()
    }

    fn may_run_again(&self) -> bool {
        !AtomicBool::load(&self.has_sent, Ordering::Relaxed)
    }

    fn leaves_rows(end: &ReadEnd) -> bool {
        !matches!(end, ReadEnd::Complete)
    }

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<ReadEnd>, DbError> {
        let wanted = &self.following.wanted;
        let rows = diesel::sql_query(STATES)
            .bind::<Text, _>(&self.following.namespace)
            .bind::<Nullable<Text>, _>(&wanted.entity_type)
            .bind::<Nullable<Uuid>, _>(wanted.entity_id)
            .bind::<Array<Text>, _>(&self.workflow_states)
            .load_stream::<StateRow>(connection)
            .await?;
        let mut parts = std::pin::pin!(rows.try_chunks(PART));
        let mut sender = PatientSender::new(&self.sender);
        let mut found = None;
        while let Some(rows) = parts.try_next().await.map_err(|error| error.1)? {
            found = found.or(rows.iter().find_map(committed));
            let states = rows.into_iter().filter_map(|row| self.state(row));
            let states: Vec<_> = states.collect();
            if states.is_empty() {
                continue;
            }
            self.has_sent.store(true, Ordering::Relaxed);
            if let Err(end) = sender.send(SnapshotPart::States(states)).await {
                return Ok(Ok(end));
            }
        }
        let Some(committed) = found else {
            return Ok(Err(internal("a snapshot has no transactions")));
        };
        // All rows are read, whether the client is there or not.
        match sender.send(SnapshotPart::Committed(committed)).await {
            Err(ReadEnd::TooSlow) => Ok(Ok(ReadEnd::TooSlow)),
            Ok(()) | Err(ReadEnd::Gone | ReadEnd::Complete) => Ok(Ok(ReadEnd::Complete)),
        }
    }
}

/// Sends parts to a client that may be slow, and waits as long as it takes enough of them.
struct PatientSender<'a> {
    parts: &'a mpsc::Sender<Result<SnapshotPart>>,
    /// How long it may still wait.
    left: Duration,
}

impl<'a> PatientSender<'a> {
    fn new(parts: &'a mpsc::Sender<Result<SnapshotPart>>) -> Self {
        PatientSender {
            parts,
            left: CLIENT_PATIENCE,
        }
    }

    /// Sends a part once there is room for it. Fails with the end of the query if the client has gone, or
    /// if it takes too few parts.
    async fn send(&mut self, part: SnapshotPart) -> Result<(), ReadEnd> {
        let begun_at = Instant::now();
        let sent = self.parts.send_timeout(Ok(part), self.left).await;
        // There was room for this part because the client has taken an earlier one.
        let left = self.left.saturating_sub(begun_at.elapsed()) + GAIN;
        self.left = left.min(CLIENT_PATIENCE);
        sent.map_err(|error| match error {
            SendTimeoutError::Closed(_) => ReadEnd::Gone,
            SendTimeoutError::Timeout(_) => ReadEnd::TooSlow,
        })
    }
}

impl ReadStates {
    /// Returns the state of a row. The id of a node in the journal is not stored with the node.
    fn state(&self, row: StateRow) -> Option<PresentState> {
        let node_id = row.node_id.map(|it| NodeId::new(it).entity_id());
        let entity_id = row.entity_id.or(node_id)?;
        let is_wanted = self
            .following
            .wanted
            .entity_id
            .is_none_or(|id| id == entity_id);
        is_wanted.then_some(PresentState {
            entity_type: row.entity_type?,
            entity_id,
            current_state: row.current_state,
        })
    }
}

/// Returns the transactions of the row that has them.
fn committed(row: &StateRow) -> Option<Committed> {
    if row.entity_type.is_some() {
        return None;
    }
    let offset = u64::try_from(row.xid_offset).ok()?;
    Committed::parse(&row.current_state, offset)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Sends 1000 parts to a client that takes each after a pause. Returns after how long the query ends,
    /// `None` if the client gets all parts.
    async fn end_of_query(pause: Duration) -> Option<Duration> {
        let (sender, mut parts) = mpsc::channel(PARTS_AHEAD);
        tokio::spawn(async move {
            while parts.recv().await.is_some() {
                sleep(pause).await;
            }
        });
        let begun_at = Instant::now();
        let mut sender = PatientSender::new(&sender);
        for _ in 0..1000 {
            let part = SnapshotPart::States(Vec::new());
            if sender.send(part).await.is_err() {
                return Some(begun_at.elapsed());
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_single_parts_gains_no_time() {
        for pause in [3600.0, 4.9, 1.9] {
            let after = end_of_query(Duration::from_secs_f64(pause)).await.unwrap();
            assert!(after < CLIENT_PATIENCE + 4 * GAIN, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_parts_fast_enough_gets_all() {
        assert_eq!(end_of_query(GAIN).await, None);
        let after = end_of_query(GAIN * 2).await.unwrap();
        assert!(after < 3 * CLIENT_PATIENCE, "{after:?}");
    }
}
