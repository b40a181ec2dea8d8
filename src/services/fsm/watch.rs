//! The stream of WatchTransitions.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::model::{WatchBegin, WatchRequest};
use crate::{
    db::{
        Database,
        feed::{Begin, Follower, Following, Wanted, gone},
        journal::Transition,
    },
    domain::{
        error::{Error, Resource, Result, WatchEnd},
        namespace::{Namespace, Scoped},
        position::Position,
    },
    ops::metrics::FeedMetrics,
    proto::v1::{self, watch_transitions_response::Message},
    rpc::stream_call::StreamCall,
};

/// Interval of bookmarks, and of checks of the token.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a client may take for a message while others wait.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// Opens a stream.
///
/// # Errors
/// [`WatchEnd::Gone`] and [`Error::NotFound`], and errors of the database.
pub async fn open(
    database: &Database,
    request: Scoped<WatchRequest>,
    call: StreamCall,
) -> Result<impl Stream<Item = Result<v1::WatchTransitionsResponse, Status>> + use<>> {
    let Scoped {
        namespace,
        token_id,
        content: WatchRequest { wanted, begin },
        ..
    } = request;
    let following = Following {
        namespace: namespace.clone(),
        token_id,
        wanted: Arc::new(wanted),
    };
    let found = Follower::find_begin(database, &following, named(begin)).await?;
    let after = first_position(&namespace, begin, &found)?;
    let skipped = (begin == WatchBegin::Now).then_some(found.committed);
    let metrics = database.metrics().feed().clone();
    metrics.watches.inc();
    let watch = Watch {
        metrics,
        follower: Follower::new(database, following, after, skipped),
        namespace,
        call,
        bookmark_at: Instant::now() + BOOKMARK_INTERVAL,
        sent_at: Instant::now(),
        next: Step::Ready(after),
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
    /// The first one.
    Ready(Position),
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
    namespace: Namespace,
    call: StreamCall,
    bookmark_at: Instant,
    /// When the last message was taken.
    sent_at: Instant,
    next: Step,
}

type Sent = Result<v1::WatchTransitionsResponse, Status>;

/// What a stream waits for.
enum Event {
    Rows(Result<Vec<Arc<Transition>>>),
    BookmarkDue,
    Closing,
    Deadline,
}

impl Watch {
    /// Returns the next message, and the rest of the stream.
    async fn step(mut self) -> Option<(Sent, Self)> {
        let sent = match std::mem::replace(&mut self.next, Step::Next) {
            Step::Ready(position) => {
                let position = position.to_text(self.namespace.as_str());
                Ok(message(Message::Ready(v1::WatchReady { position })))
            }
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

    async fn next_message(&mut self) -> Sent {
        let is_slow = self.sent_at.elapsed() > SLOW_AFTER;
        if is_slow {
            return Ok(self.last_bookmark(|position| WatchEnd::TooSlow { position }));
        }
        let event = tokio::select! {
            biased;
            () = self.call.closing() => Event::Closing,
            () = self.call.deadline() => Event::Deadline,
            () = sleep_until(self.bookmark_at) => Event::BookmarkDue,
            rows = self.follower.next() => Event::Rows(rows),
        };
        match event {
            Event::Rows(rows) => {
                let rows = rows?;
                self.metrics.sent.inc_by(rows.len() as u64);
                Ok(transitions(rows))
            }
            Event::BookmarkDue => {
                self.bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
                self.call.check().await?;
                Ok(self.bookmark())
            }
            Event::Closing => Ok(self.last_bookmark(|position| WatchEnd::Closing { position })),
            Event::Deadline => Ok(self.last_bookmark(|position| WatchEnd::Deadline { position })),
        }
    }

    fn bookmark(&mut self) -> v1::WatchTransitionsResponse {
        let position = self.position();
        message(Message::Bookmark(v1::WatchBookmark { position }))
    }

    /// Returns the last bookmark, after which the stream ends.
    fn last_bookmark(&mut self, end: impl Fn(String) -> WatchEnd) -> v1::WatchTransitionsResponse {
        self.next = Step::End(Error::Watch(end(self.position())).into());
        self.bookmark()
    }

    fn position(&mut self) -> String {
        let position = self.follower.settled();
        position.to_text(self.namespace.as_str())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.metrics.watches.dec();
    }
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
