//! A watcher: follows a stream, checks the order of its rows, and notes their lags.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bridgebook::proto::v1::{WatchTransitionsRequest, watch_transitions_request::Begin};
use h2::client::SendRequest;
use prost::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    Result,
    answers::Answers,
    stream::{Event, Response, Row, Stream},
};

/// How long a client waits that the service was too busy for: the retry delay that the service returns.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// What all watchers share.
#[derive(Default)]
pub struct Shared {
    /// The rows that all of them received.
    pub rows: AtomicU64,
    /// The messages with rows.
    pub messages: AtomicU64,
    /// The bookmarks.
    pub bookmarks: AtomicU64,
    /// How often a stream ended and was opened again.
    pub resumed: AtomicU64,
    /// How often the service was too busy to open a stream.
    pub rejected: AtomicU64,
    /// Ends the watchers.
    pub stop: CancellationToken,
}

/// Opens a stream and waits until it is ready. Opens it again after a while if the service is busy.
/// Returns it with the position after which it begins.
async fn open_stream(
    connection: &SendRequest<Bytes>,
    address: SocketAddr,
    request: &WatchTransitionsRequest,
    shared: &Shared,
) -> Result<(Stream, Bytes)> {
    loop {
        let mut stream = match Stream::open(connection, address, request).await {
            Err(error) if is_busy(&error) => {
                shared.rejected.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            opened => opened?,
        };
        return match stream.next().await? {
            Event::Message(Response { ready, .. }) => {
                let ready = ready.ok_or("the first message is not ready")?;
                Ok((stream, ready.position))
            }
            Event::End(status) => Err(status.into()),
        };
    }
}

fn is_busy(error: &crate::Failure) -> bool {
    let status = error.downcast_ref::<Status>();
    status.is_some_and(|status| status.code() == Code::ResourceExhausted)
}

/// What a watcher received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The number of rows.
    pub rows: u64,
    /// A digest of their ids in order.
    pub digest: u64,
}

impl Seen {
    /// Adds a row.
    pub fn add(&mut self, id: Uuid) {
        /// An odd number without a pattern, so that the digest depends on the order.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let (high, low) = id.as_u64_pair();
        self.rows += 1;
        self.digest = (self.digest ^ low ^ high.rotate_left(32))
            .wrapping_mul(FACTOR)
            .rotate_left(29);
    }
}

/// The rows that a watcher has to receive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The namespace.
    pub namespace: String,
    /// The entity that it waits for, if it waits for one.
    pub entity_id: Option<Uuid>,
    /// The position after which the stream began.
    pub ready: Bytes,
}

/// A watcher whose stream is open.
pub struct Watcher {
    connection: SendRequest<Bytes>,
    address: SocketAddr,
    request: WatchTransitionsRequest,
    shared: Arc<Shared>,
    stream: Stream,
    /// What it has to receive.
    pub wanted: Wanted,
    /// The position of the last message.
    position: Bytes,
    /// What it has received.
    pub seen: Seen,
    /// The lags of rows, in microseconds.
    pub lags: Vec<u32>,
    /// When it received the last row.
    pub last_at: Option<Instant>,
}

impl Watcher {
    /// Opens a stream, and waits until it is ready.
    pub async fn open(
        connection: SendRequest<Bytes>,
        address: SocketAddr,
        request: WatchTransitionsRequest,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let (stream, ready) = open_stream(&connection, address, &request, &shared).await?;
        let entity_id = Some(&request.entity_id).filter(|id| !id.is_empty());
        let wanted = Wanted {
            namespace: request.namespace.clone(),
            entity_id: entity_id.map(|id| Uuid::try_parse(id)).transpose()?,
            ready: ready.clone(),
        };
        Ok(Watcher {
            connection,
            address,
            request,
            shared,
            stream,
            position: ready,
            wanted,
            seen: Seen::default(),
            lags: Vec::new(),
            last_at: None,
        })
    }

    /// Returns the watcher, so that it counts with others.
    pub fn sharing(mut self, shared: &Arc<Shared>) -> Self {
        self.shared = Arc::clone(shared);
        self
    }

    /// Follows the stream until all watchers are to stop. Fails if a row is out of order.
    pub async fn run(mut self, answers: Option<Arc<Answers>>) -> Result<Self> {
        let stop = self.shared.stop.clone();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(self),
                event = self.stream.next() => event?,
            };
            match event {
                Event::Message(message) => self.receive(message, answers.as_deref())?,
                Event::End(status) => self.resume(status).await?,
            }
        }
    }

    fn receive(&mut self, message: Response, answers: Option<&Answers>) -> Result<()> {
        let now = Instant::now();
        if let Some(bookmark) = message.bookmark {
            self.shared.bookmarks.fetch_add(1, Ordering::Relaxed);
            if bookmark.position < self.position {
                return Err(self.fault("a bookmark goes back"));
            }
            self.position = bookmark.position;
        }
        let rows = message.transitions.unwrap_or_default().rows;
        if rows.is_empty() {
            return Ok(());
        }
        self.shared.messages.fetch_add(1, Ordering::Relaxed);
        self.shared
            .rows
            .fetch_add(rows.len() as u64, Ordering::Relaxed);
        self.last_at = Some(now);
        // A copy, so that it does not keep the bytes of the message.
        let last = rows.last().map(|row| Bytes::copy_from_slice(&row.position));
        for row in rows {
            let id = self.check(row)?;
            let lag = answers.and_then(|answers| answers.lag(id, now));
            self.lags.extend(lag);
        }
        self.position = last.unwrap_or_default();
        Ok(())
    }

    /// Checks that a row comes after the one before it.
    fn check(&mut self, row: Row) -> Result<Uuid> {
        // Positions of a namespace compare as texts in the order of their rows.
        if row.position <= self.position {
            return Err(self.fault("a row is repeated or out of order"));
        }
        self.position = row.position;
        let id = Uuid::try_parse_ascii(&row.id)?;
        self.seen.add(id);
        Ok(id)
    }

    /// Watches again after the last position, as a client should.
    async fn resume(&mut self, status: Status) -> Result<()> {
        if !matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) {
            return Err(status.into());
        }
        self.shared.resumed.fetch_add(1, Ordering::Relaxed);
        let after = String::from_utf8(self.position.to_vec())?;
        self.request.begin = Some(Begin::After(after));
        let opened = open_stream(&self.connection, self.address, &self.request, &self.shared).await;
        (self.stream, _) = opened?;
        Ok(())
    }

    fn fault(&self, fault: &str) -> crate::Failure {
        let position = String::from_utf8_lossy(&self.position);
        format!("{fault} after {position} in {}", self.wanted.namespace).into()
    }
}
