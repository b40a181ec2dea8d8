//! The stream of WatchTransitions.

mod begin;
mod unread;

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use prost::Message as _;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use self::begin::{first_position, named};
use super::{
    model::{PresentState, WatchBegin, WatchRequest},
    store::{SnapshotPart, SnapshotParts, read_snapshot},
};
use crate::{
    db::{
        Database,
        batch::Batcher,
        feed::{FindBegins, Follower, Following, SharedRow, find_begin},
        journal::Transition,
    },
    domain::{
        error::{Error, Result, WatchEnd, internal},
        namespace::{Namespace, Scoped},
        position::Position,
    },
    ops::metrics::FeedMetrics,
    proto::v1::{self, watch_transitions_response::Message},
    rpc::stream_call::StreamCall,
};

/// Interval of bookmarks, and of empty parts of a snapshot until there is one. They show the client that the
/// stream is alive.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a bookmark waits for the other rows of a commit, before it looks again.
const BOOKMARK_DELAY: Duration = Duration::from_millis(10);

/// Opens a stream.
///
/// # Errors
/// [`WatchEnd::Gone`] and [`Error::NotFound`], and errors of the database.
pub async fn open(
    database: &Database,
    batcher: &Batcher<FindBegins>,
    request: Scoped<WatchRequest>,
    call: StreamCall,
) -> Result<impl Stream<Item = Result<v1::WatchTransitionsResponse, Status>> + use<>> {
    let Scoped {
        namespace,
        token_id,
        content:
            WatchRequest {
                wanted,
                begin,
                snapshot,
            },
        ..
    } = request;
    let following = Following {
        namespace: namespace.clone(),
        token_id,
        wanted: Arc::new(wanted),
    };
    let found = find_begin(database, batcher, &following, named(begin)).await?;
    let after = first_position(&namespace, begin, &found)?;
    let skipped = (begin == WatchBegin::Now).then_some(found.committed);
    let has_snapshot = snapshot.is_some();
    let next = match snapshot {
        Some(states) => Step::Snapshot(read_snapshot(database, following.clone(), states)),
        None => Step::Ready,
    };
    let metrics = database.metrics().feed().clone();
    let watch = Watch {
        open: OpenWatch::new(metrics),
        follower: Follower::new(database, following, after, skipped),
        namespace,
        call,
        bookmark_at: Instant::now() + BOOKMARK_INTERVAL,
        begins_after: after,
        has_snapshot,
        next,
    };
    Ok(unread::stream(watch))
}

/// The next message of a stream.
enum Step {
    /// A part of the snapshot.
    Snapshot(SnapshotParts),
    /// The one after which nothing is missed.
    Ready,
    /// Transitions, or a bookmark.
    Next,
}

/// Counts as an open stream until it is dropped.
struct OpenWatch(FeedMetrics);

impl OpenWatch {
    fn new(metrics: FeedMetrics) -> Self {
        metrics.watches.inc();
        OpenWatch(metrics)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.watches.dec();
    }
}

struct Watch {
    open: OpenWatch,
    follower: Follower,
    begins_after: Position,
    has_snapshot: bool,
    namespace: Namespace,
    call: StreamCall,
    /// When the next bookmark is due; until the copy is complete, an empty part of the snapshot.
    bookmark_at: Instant,
    next: Step,
}

/// Why a watch has no further message.
enum Stop {
    /// A failure.
    Failed(Error),
    /// An end after which the client can go on.
    Ended(fn(Option<String>) -> WatchEnd),
    /// There is no memory for a message. The stream has come to this position.
    NoRoom(Position),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// What a stream sends until it is over.
enum Rest {
    /// The messages of a watch.
    Open(Box<Watch>),
    /// The last ones.
    Last(Box<Last>),
}

/// The last messages of a stream whose watch has ended.
struct Last {
    bookmark: Option<v1::WatchTransitionsResponse>,
    status: Status,
    /// Counts against the quotas until the client has taken the status.
    _call: StreamCall,
    _open: OpenWatch,
}

type Sent = Result<v1::WatchTransitionsResponse, Status>;

impl Rest {
    /// Returns the next message, and the rest of the stream.
    async fn step(self) -> (Sent, Option<Rest>) {
        let mut watch = match self {
            Rest::Open(watch) => watch,
            Rest::Last(last) => return last.step(),
        };
        match watch.message().await {
            Ok(message) => (Ok(message), Some(Rest::Open(watch))),
            Err(Stop::Failed(error)) => (Err(error.into()), None),
            Err(Stop::Ended(end)) => watch.end(end).step(),
            Err(Stop::NoRoom(position)) => watch.into_last(None, too_slow, position).step(),
        }
    }
}

impl Last {
    fn step(mut self: Box<Self>) -> (Sent, Option<Rest>) {
        match self.bookmark.take() {
            Some(bookmark) => (Ok(bookmark), Some(Rest::Last(self))),
            None => (Err(self.status), None),
        }
    }
}

impl Watch {
    /// Waits for the next message.
    async fn message(&mut self) -> Result<v1::WatchTransitionsResponse, Stop> {
        match std::mem::replace(&mut self.next, Step::Next) {
            Step::Snapshot(parts) => self.next_part(parts).await,
            Step::Ready => Ok(self.ready()),
            Step::Next => self.next_message().await,
        }
    }

    fn ready(&self) -> v1::WatchTransitionsResponse {
        let position = self.begins_after.to_text(self.namespace.as_str());
        message(Message::Ready(v1::WatchReady { position }))
    }

    /// Returns the next part of the snapshot, which is empty if none comes for a while. Returns after the
    /// last one that the stream is ready.
    async fn next_part(
        &mut self,
        mut parts: SnapshotParts,
    ) -> Result<v1::WatchTransitionsResponse, Stop> {
        let part = loop {
            self.check().await?;
            tokio::select! {
                biased;
                () = self.call.closing() => return self.stop(parts, closing),
                () = self.call.deadline() => return self.stop(parts, deadline),
                part = parts.recv() => break part,
                () = sleep_until(self.tick_at()) => {
                    if self.bookmark_at <= Instant::now() {
                        break Some(Ok(SnapshotPart::States(Vec::new())));
                    }
                }
            }
        };
        match part.unwrap_or_else(|| Err(internal("a snapshot has no end")))? {
            SnapshotPart::States(states) => {
                self.next = Step::Snapshot(parts);
                self.bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
                self.with_room(snapshot_part(states), self.begins_after)
            }
            SnapshotPart::Committed(committed) => {
                self.follower.skip(committed);
                Ok(self.ready())
            }
        }
    }

    /// Returns the next transitions, or a bookmark.
    async fn next_message(&mut self) -> Result<v1::WatchTransitionsResponse, Stop> {
        loop {
            // Not together with the bookmark, which waits for the end of a commit.
            self.check().await?;
            let before = self.follower.position();
            tokio::select! {
                biased;
                () = self.call.closing() => return Err(Stop::Ended(closing)),
                () = self.call.deadline() => return Err(Stop::Ended(deadline)),
                () = sleep_until(self.tick_at()) => {
                    if self.bookmark_at > Instant::now() {
                        continue;
                    }
                    // Before the check, because it finds out how far the group has come.
                    let bookmark = self.bookmark();
                    let sign = match self.is_copy_complete() {
                        true => bookmark,
                        false => Some(snapshot_part(Vec::new())),
                    };
                    let Some(sign) = sign else {
                        self.bookmark_at = Instant::now() + BOOKMARK_DELAY;
                        continue;
                    };
                    self.bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
                    return Ok(sign);
                }
                rows = self.follower.next() => {
                    let rows = rows?;
                    // They may have taken long to read.
                    self.check().await?;
                    return self.transitions(&rows, before);
                }
            }
        }
    }

    /// Returns the message of rows after a position.
    fn transitions(
        &self,
        rows: &[Arc<SharedRow>],
        before: Position,
    ) -> Result<v1::WatchTransitionsResponse, Stop> {
        let message = self.with_room(transitions(rows), before)?;
        self.open.0.sent.inc_by(rows.len() as u64);
        Ok(message)
    }

    /// Returns a message if there is memory for it.
    fn with_room(
        &self,
        message: v1::WatchTransitionsResponse,
        before: Position,
    ) -> Result<v1::WatchTransitionsResponse, Stop> {
        match self.call.has_room(message.encoded_len()) {
            true => Ok(message),
            false => Err(Stop::NoRoom(before)),
        }
    }

    /// Returns whether the client has the whole snapshot, and a position after it. Until then it has to begin
    /// again if the stream ends: after its position, transitions would come that the snapshot contains.
    fn is_copy_complete(&self) -> bool {
        let is_sent = !matches!(self.next, Step::Snapshot(_));
        is_sent && !(self.has_snapshot && self.follower.is_skipping())
    }

    /// Checks the token if that is due.
    async fn check(&mut self) -> Result<()> {
        match self.call.check_at() <= Instant::now() {
            true => self.call.check().await,
            false => Ok(()),
        }
    }

    /// Returns when something is due: a bookmark, or a check of the token.
    fn tick_at(&self) -> Instant {
        self.bookmark_at.min(self.call.check_at())
    }

    /// Returns a bookmark; `None` between two rows of a commit.
    fn bookmark(&mut self) -> Option<v1::WatchTransitionsResponse> {
        let position = self.follower.settled()?;
        let position = position.to_text(self.namespace.as_str());
        Some(message(Message::Bookmark(v1::WatchBookmark { position })))
    }

    /// Ends the stream within its snapshot.
    fn stop<T>(
        &mut self,
        parts: SnapshotParts,
        end: fn(Option<String>) -> WatchEnd,
    ) -> Result<T, Stop> {
        self.next = Step::Snapshot(parts);
        Err(Stop::Ended(end))
    }

    /// Ends the stream, after a last bookmark unless it is between two rows of a commit.
    fn end(mut self, end: fn(Option<String>) -> WatchEnd) -> Box<Last> {
        let bookmark = self.bookmark();
        let position = self.follower.position();
        self.into_last(bookmark, end, position)
    }

    /// Ends the stream. There is neither a bookmark nor a position until the copy is complete.
    fn into_last(
        self,
        bookmark: Option<v1::WatchTransitionsResponse>,
        end: fn(Option<String>) -> WatchEnd,
        position: Position,
    ) -> Box<Last> {
        let is_complete = self.is_copy_complete();
        let position = is_complete.then(|| position.to_text(self.namespace.as_str()));
        Box::new(Last {
            bookmark: bookmark.filter(|_| is_complete),
            status: Error::Watch(end(position)).into(),
            _call: self.call,
            _open: self.open,
        })
    }
}

fn closing(position: Option<String>) -> WatchEnd {
    WatchEnd::Closing { position }
}

fn deadline(position: Option<String>) -> WatchEnd {
    WatchEnd::Deadline { position }
}

fn too_slow(position: Option<String>) -> WatchEnd {
    WatchEnd::TooSlow { position }
}

fn transitions(rows: &[Arc<SharedRow>]) -> v1::WatchTransitionsResponse {
    let encode = |row: &Transition| {
        let transition: v1::FsmTransition = row.clone().into();
        transition.encode_to_vec().into()
    };
    let encoded = rows.iter().map(|row| row.encoded(encode)).collect();
    let transitions = v1::WatchedTransitions::of_encoded(encoded);
    message(Message::Transitions(transitions))
}

fn snapshot_part(states: Vec<PresentState>) -> v1::WatchTransitionsResponse {
    let states = states.into_iter().map(Into::into).collect();
    message(Message::Snapshot(v1::WatchSnapshot { states }))
}

fn message(message: Message) -> v1::WatchTransitionsResponse {
    v1::WatchTransitionsResponse {
        message: Some(message),
    }
}
