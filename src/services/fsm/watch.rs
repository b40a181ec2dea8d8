//! The stream of WatchTransitions.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::{
    model::{WatchBegin, WatchRequest},
    store::{SnapshotPart, SnapshotParts, read_snapshot},
};
use crate::{
    db::{
        Database,
        batch::Batcher,
        feed::{Begin, FindBegins, Follower, Following, Wanted, find_begin, gone},
        journal::Transition,
    },
    domain::{
        error::{Error, Resource, Result, WatchEnd, internal},
        namespace::{Namespace, Scoped},
        position::Position,
    },
    ops::metrics::FeedMetrics,
    proto::v1::{self, watch_transitions_response::Message},
    rpc::stream_call::StreamCall,
};

/// Interval of bookmarks, and of checks of the token.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a bookmark waits for the other rows of a commit, before it looks again.
const BOOKMARK_DELAY: Duration = Duration::from_millis(10);
/// How long a check of the token may delay a bookmark. A connection without any message for 10 s is
/// taken for stalled.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client may take for a message while others wait.
const SLOW_AFTER: Duration = Duration::from_secs(10);

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
    let next = match snapshot {
        Some(states) => Step::Snapshot(read_snapshot(database, following.clone(), states)),
        None => Step::Ready,
    };
    let metrics = database.metrics().feed().clone();
    metrics.watches.inc();
    let watch = Watch {
        metrics,
        follower: Follower::new(database, following, after, skipped),
        namespace,
        call,
        bookmark_at: Instant::now() + BOOKMARK_INTERVAL,
        sent_at: Instant::now(),
        begins_after: after,
        next,
    };
    Ok(stream::unfold(watch, async |watch| watch.step().await))
}

/// Returns what a request names to begin after.
fn named(begin: WatchBegin) -> Wanted {
    match begin {
        WatchBegin::After(position) => Wanted {
            after: Some(position),
            bridge_id: None,
        },
        WatchBegin::AfterBridge(bridge_id) => Wanted {
            after: None,
            bridge_id: Some(bridge_id),
        },
        WatchBegin::Start | WatchBegin::Now => Wanted::default(),
    }
}

/// Returns the position that a watch begins after.
fn first_position(namespace: &Namespace, begin: WatchBegin, found: &Begin) -> Result<Position> {
    if let WatchBegin::AfterBridge(id) = begin
        && !found.has_bridge
    {
        return Err(Error::NotFound {
            resource: Resource::Bridge,
            field: "after_bridge",
            name: id.to_string(),
            namespace: Some(namespace.clone()),
        });
    }
    if !found.is_complete() {
        return Err(gone(namespace, found.floor));
    }
    Ok(match begin {
        WatchBegin::Now => found.last,
        WatchBegin::Start => found.floor,
        WatchBegin::After(_) | WatchBegin::AfterBridge(_) => found.wanted.unwrap_or(found.floor),
    })
}

/// The next message of a stream.
enum Step {
    /// A part of the snapshot.
    Snapshot(SnapshotParts),
    /// The one after which nothing is missed.
    Ready,
    /// Transitions, or a bookmark.
    Next,
    /// The status at the end.
    End(Status),
    /// None.
    Done,
}

struct Watch {
    metrics: FeedMetrics,
    follower: Follower,
    begins_after: Position,
    namespace: Namespace,
    call: StreamCall,
    bookmark_at: Instant,
    /// When the last message was taken.
    sent_at: Instant,
    next: Step,
}

type Sent = Result<v1::WatchTransitionsResponse, Status>;

impl Watch {
    /// Returns the next message, and the rest of the stream.
    async fn step(mut self) -> Option<(Sent, Self)> {
        let sent = match std::mem::replace(&mut self.next, Step::Next) {
            Step::Snapshot(parts) => self.next_part(parts).await,
            Step::Ready => Ok(self.ready()),
            Step::Next => self.next_message().await,
            Step::End(status) => Err(status),
            Step::Done => return None,
        };
        if sent.is_err() {
            self.next = Step::Done;
        }
        self.sent_at = Instant::now();
        Some((sent, self))
    }

    fn ready(&self) -> v1::WatchTransitionsResponse {
        let position = self.begins_after.to_text(self.namespace.as_str());
        message(Message::Ready(v1::WatchReady { position }))
    }

    /// Returns the next part of the snapshot, and after the last one that the stream is ready.
    async fn next_part(&mut self, mut parts: SnapshotParts) -> Sent {
        let part = tokio::select! {
            biased;
            () = self.call.closing() => return self.end(closing),
            () = self.call.deadline() => return self.end(deadline),
            part = parts.recv() => part,
        };
        match part.unwrap_or_else(|| Err(internal("a snapshot has no end")))? {
            SnapshotPart::States(states) => {
                self.next = Step::Snapshot(parts);
                let states = states.into_iter().map(Into::into).collect();
                Ok(message(Message::Snapshot(v1::WatchSnapshot { states })))
            }
            SnapshotPart::Committed(committed) => {
                self.follower.skip(committed);
                Ok(self.ready())
            }
        }
    }

    /// Returns the next transitions, or a bookmark.
    async fn next_message(&mut self) -> Sent {
        if self.sent_at.elapsed() > SLOW_AFTER {
            return self.end(|position| WatchEnd::TooSlow { position });
        }
        loop {
            tokio::select! {
                biased;
                () = self.call.closing() => return self.end(closing),
                () = self.call.deadline() => return self.end(deadline),
                () = sleep_until(self.bookmark_at) => {
                    let Some(bookmark) = self.bookmark() else {
                        self.bookmark_at = Instant::now() + BOOKMARK_DELAY;
                        continue;
                    };
                    self.bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
                    // A database that does not answer delays no bookmark, and ends no stream.
                    if let Ok(checked) = timeout(CHECK_TIMEOUT, self.call.check()).await {
                        checked?;
                    }
                    return Ok(bookmark);
                }
                rows = self.follower.next() => {
                    let rows = rows?;
                    self.metrics.sent.inc_by(rows.len() as u64);
                    return Ok(transitions(rows));
                }
            }
        }
    }

    /// Returns a bookmark; `None` between two rows of a commit.
    fn bookmark(&mut self) -> Option<v1::WatchTransitionsResponse> {
        let position = self.follower.settled()?;
        let position = position.to_text(self.namespace.as_str());
        Some(message(Message::Bookmark(v1::WatchBookmark { position })))
    }

    /// Ends the stream, after a last bookmark unless it is between two rows of a commit.
    fn end(&mut self, end: impl Fn(String) -> WatchEnd) -> Sent {
        let bookmark = self.bookmark();
        let position = self.follower.position().to_text(self.namespace.as_str());
        let status = Status::from(Error::Watch(end(position)));
        let bookmark = bookmark.ok_or_else(|| status.clone())?;
        self.next = Step::End(status);
        Ok(bookmark)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.metrics.watches.dec();
    }
}

fn closing(position: String) -> WatchEnd {
    WatchEnd::Closing { position }
}

fn deadline(position: String) -> WatchEnd {
    WatchEnd::Deadline { position }
}

fn transitions(rows: Vec<Arc<Transition>>) -> v1::WatchTransitionsResponse {
    let rows = rows.into_iter().map(Arc::unwrap_or_clone);
    message(Message::Transitions(v1::WatchedTransitions {
        transitions: rows.map(Into::into).collect(),
    }))
}

fn message(message: Message) -> v1::WatchTransitionsResponse {
    v1::WatchTransitionsResponse {
        message: Some(message),
    }
}
