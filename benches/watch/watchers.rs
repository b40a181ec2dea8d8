//! Many watchers: opens them, waits until they have all rows, and compares these with the journal.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bridgebook::proto::v1::WatchTransitionsRequest;
use h2::client::SendRequest;
use prost::bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    Result,
    answers::Answers,
    call::connect,
    journal::Journal,
    stage::{Served, Stage},
    watcher::{Shared, Wanted, Watcher},
};

/// How many watchers share a connection, if nothing else is said.
pub const PER_CONNECTION: usize = 10;
/// How long no watcher may receive a row while some are missing.
const STALLED: Duration = Duration::from_secs(30);
/// The interval at which it is checked whether the watchers have all rows.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Watchers whose streams are open.
pub struct Watchers {
    watchers: Vec<Watcher>,
    /// What they share.
    pub shared: Arc<Shared>,
}

/// Watchers that follow their streams.
pub struct Running {
    tasks: JoinSet<Result<Watcher>>,
    wanted: Vec<Wanted>,
    /// What they share.
    pub shared: Arc<Shared>,
}

/// Opens connections to a service.
pub async fn connections(address: SocketAddr, count: usize) -> Result<Vec<SendRequest<Bytes>>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(connect(address).await?);
    }
    Ok(connections)
}

impl Watchers {
    /// Opens a stream for each request, spread over the connections; on each of them one after the
    /// other.
    pub async fn open(
        address: SocketAddr,
        connections: &[SendRequest<Bytes>],
        requests: Vec<WatchTransitionsRequest>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut tasks: JoinSet<Result<Vec<Watcher>>> = JoinSet::new();
        for (index, connection) in connections.iter().enumerate() {
            let requests = requests.iter().skip(index).step_by(connections.len());
            let requests: Vec<_> = requests.cloned().collect();
            let (connection, shared) = (connection.clone(), Arc::clone(&shared));
            tasks.spawn(async move {
                let mut watchers = Vec::new();
                for request in requests {
                    let connection = connection.clone();
                    let shared = Arc::clone(&shared);
                    watchers.push(Watcher::open(connection, address, request, shared).await?);
                }
                Ok(watchers)
            });
        }
        let mut watchers = Vec::new();
        while let Some(opened) = tasks.join_next().await {
            watchers.extend(opened??);
        }
        Ok(Watchers { watchers, shared })
    }

    /// Adds others, which are then counted together.
    pub fn join(mut self, others: Self) -> Self {
        let others = others.watchers.into_iter();
        let shared = &self.shared;
        self.watchers.extend(others.map(|it| it.sharing(shared)));
        self
    }

    /// Returns the position after which the first one began.
    pub fn ready(&self) -> Result<String> {
        let first = self.watchers.first().ok_or("no watcher")?;
        Ok(String::from_utf8(first.wanted.ready.to_vec())?)
    }

    /// Lets them follow their streams. Lags are those after `answers`.
    pub fn run(self, answers: Option<&Arc<Answers>>) -> Running {
        let mut tasks = JoinSet::new();
        let wanted = self.watchers.iter().map(|it| it.wanted.clone()).collect();
        for watcher in self.watchers {
            tasks.spawn(watcher.run(answers.cloned()));
        }
        Running {
            tasks,
            wanted,
            shared: self.shared,
        }
    }
}

impl Running {
    /// Returns the rows that all of them have received so far.
    pub fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Returns the bookmarks that all of them have received so far.
    pub fn bookmarks(&self) -> u64 {
        self.shared.bookmarks.load(Ordering::Relaxed)
    }

    /// Stops them after they have received all rows that are in the journal now. Fails if one of them
    /// missed, repeated or reordered a row.
    pub async fn finish(mut self, stage: &Stage, served: &Served) -> Result<Vec<Watcher>> {
        let mut journal = Journal::load(stage, served.database, &self.wanted).await?;
        let expected = self.wanted.iter().map(|it| journal.expected(it).rows);
        self.wait_for(expected.sum()).await?;
        self.shared.stop.cancel();
        let mut watchers = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            watchers.push(ended??);
        }
        for Watcher { wanted, seen, .. } in &watchers {
            let expected = journal.expected(wanted);
            if expected != *seen {
                return Err(format!(
                    "a watcher of {} received {} rows of {}, or others, or in another order",
                    wanted.namespace, seen.rows, expected.rows
                )
                .into());
            }
        }
        Ok(watchers)
    }

    /// Waits until they have received `rows` rows together, or none for a while. Fails if one of them
    /// failed.
    async fn wait_for(&mut self, rows: u64) -> Result<()> {
        let (mut before, mut since) = (self.rows(), Instant::now());
        while self.rows() < rows && since.elapsed() < STALLED {
            tokio::time::sleep(CHECK_INTERVAL).await;
            // None ends before it is stopped, but by a failure.
            if let Some(ended) = self.tasks.try_join_next() {
                ended??;
            }
            if self.rows() > before {
                (before, since) = (self.rows(), Instant::now());
            }
        }
        Ok(())
    }
}
