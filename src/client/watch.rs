//! Follows the journal, and goes on by itself after a break.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::{
    Client,
    retry::{Retries, reason},
};
use crate::proto::v1::{
    FsmTransition, WatchTransitionsRequest, WatchTransitionsResponse, WatchedState,
    watch_transitions_request::Begin, watch_transitions_response::Message,
};

/// How long a stream may be silent. The server sends a bookmark every 5 s, also while its database is
/// unavailable. Pings do not notice a proxy that has lost the server behind it.
const SILENCE: Duration = Duration::from_secs(30);

/// What a [`Watch`] returns.
#[derive(Debug, Clone)]
pub enum Event {
    /// Present states, before [`Event::Ready`], if the request asks for them. After an interruption
    /// for which [`Watch::position`] is `None`, they come again: drop what was returned before.
    Snapshot(Vec<WatchedState>),
    /// A stream is open, for the first time or again. After [`Watch::position`] nothing is missed.
    Ready,
    /// Transitions, in the order of the journal; at least one.
    Transitions(Vec<FsmTransition>),
    /// All transitions up to this position were returned that match the filters.
    Bookmark(String),
    /// The stream broke. The next call of [`Watch::next`] waits for the pause, and then opens another
    /// one.
    Interrupted(Interruption),
}

/// Why a stream broke.
#[derive(Debug, Clone)]
pub struct Interruption {
    /// The error.
    pub status: Status,
    /// How long the watch waits before it opens another stream.
    pub pause: Duration,
}

/// Follows the journal over WatchTransitions. After a break it opens another stream behind the last
/// transition that it has returned, so that none is missed and none is returned twice.
///
/// ```ignore
/// let mut watch = Watch::new(&client, WatchTransitionsRequest {
///     namespace: "demo".into(),
///     begin: Some(Begin::After(saved_position)),
///     ..WatchTransitionsRequest::default()
/// });
/// loop {
///     if let Event::Transitions(transitions) = watch.next().await? {
///         // Save watch.position() together with the outcome.
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Watch {
    client: Client,
    request: WatchTransitionsRequest,
    /// The position of the last message that had one.
    reached: Option<String>,
    stream: Option<Opened>,
    retries: Retries,
    /// When the next stream may be opened.
    open_at: Instant,
}

/// An open stream.
#[derive(Debug)]
struct Opened {
    messages: Streaming<WatchTransitionsResponse>,
    /// When the last message came, or the stream was opened.
    heard_at: Instant,
    /// Whether [`Event::Ready`] was returned.
    is_ready: bool,
}

impl Opened {
    fn new(messages: Streaming<WatchTransitionsResponse>) -> Self {
        Opened {
            messages,
            heard_at: Instant::now(),
            is_ready: false,
        }
    }

    /// Waits for a message of a known kind that says something.
    async fn message(&mut self) -> Result<Message, Status> {
        loop {
            // Not from now on, because the caller may have dropped calls of this.
            let silent_at = self.heard_at + SILENCE;
            let message = timeout_at(silent_at, self.messages.message()).await;
            let message = message.map_err(|_| broken("the stream is silent"))??;
            let message = message.ok_or_else(|| broken("the stream ended"))?;
            self.heard_at = Instant::now();
            match message.message {
                // It only shows that the stream is alive.
                Some(Message::Snapshot(snapshot)) if snapshot.states.is_empty() => {}
                // The snapshot is not complete, so there is nothing to go on after.
                Some(Message::Bookmark(_)) if !self.is_ready => {}
                Some(message) => {
                    self.is_ready |= matches!(message, Message::Ready(_));
                    return Ok(message);
                }
                None => {}
            }
        }
    }
}

impl Watch {
    /// Creates a watch. The first call of [`Watch::next`] opens its stream.
    #[must_use]
    pub fn new(client: &Client, request: WatchTransitionsRequest) -> Self {
        let reached = match &request.begin {
            Some(Begin::After(position)) => Some(position.clone()),
            _ => None,
        };
        Watch {
            client: client.clone(),
            request,
            reached,
            stream: None,
            retries: Retries::new(Duration::MAX),
            open_at: Instant::now(),
        }
    }

    /// Returns the position after which the watch goes on: that of the last transition or bookmark that
    /// it has returned. `None` before the first [`Event::Ready`], unless the request has a position; and
    /// with a snapshot before the first [`Event::Bookmark`], because until then a stream after a position
    /// can repeat transitions that the snapshot contains.
    #[must_use]
    pub fn position(&self) -> Option<&str> {
        let reached = self.reached.as_deref();
        reached.filter(|_| !self.request.with_snapshot)
    }

    /// Waits for the next event. The call may be dropped, as in `tokio::select!`, and loses nothing.
    ///
    /// # Errors
    /// Every error that another attempt cannot mend, such as that of a token that was revoked. For
    /// `RESUME_POINT_GONE` see [`oldest_position`].
    pub async fn next(&mut self) -> Result<Event, Status> {
        let message = match self.message().await {
            Ok(message) => message,
            Err(status) => return self.interrupt(status),
        };
        Ok(match message {
            Message::Snapshot(snapshot) => Event::Snapshot(snapshot.states),
            Message::Ready(ready) => {
                self.reached = Some(ready.position);
                Event::Ready
            }
            Message::Transitions(it) => {
                self.retries = Retries::new(Duration::MAX);
                if let Some(last) = it.transitions.last() {
                    self.reached = Some(last.position.clone());
                }
                Event::Transitions(it.transitions)
            }
            Message::Bookmark(bookmark) => {
                self.retries = Retries::new(Duration::MAX);
                self.reached = Some(bookmark.position.clone());
                self.request.with_snapshot = false;
                self.request.workflow_states.clear();
                Event::Bookmark(bookmark.position)
            }
        })
    }

    /// Waits for a message. Opens a stream if there is none.
    async fn message(&mut self) -> Result<Message, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                sleep_until(self.open_at).await;
                let mut request = self.request.clone();
                if let Some(position) = self.position() {
                    request.begin = Some(Begin::After(position.to_owned()));
                }
                let opened = self.client.fsm().watch_transitions(request).await?;
                self.stream.insert(Opened::new(opened.into_inner()))
            }
        };
        stream.message().await
    }

    /// Ends the stream. Returns its error if it is permanent.
    fn interrupt(&mut self, status: Status) -> Result<Event, Status> {
        self.stream = None;
        if self.request.with_snapshot {
            self.reached = None;
        }
        let Some(pause) = self.retries.pause_after(&status) else {
            return Err(status);
        };
        self.open_at = Instant::now() + pause;
        Ok(Event::Interrupted(Interruption { status, pause }))
    }
}

/// Returns the status of a stream that broke without one.
#[expect(
    clippy::disallowed_methods,
    reason = "the client makes it, and no error of the service"
)]
fn broken(cause: &'static str) -> Status {
    Status::unavailable(cause)
}

/// Returns the position after which the journal is complete, if the error is `RESUME_POINT_GONE`.
#[must_use]
pub fn oldest_position(status: &Status) -> Option<String> {
    let is_gone = reason(status).as_deref() == Some("RESUME_POINT_GONE");
    let mut info = status.get_details_error_info().filter(|_| is_gone)?;
    info.metadata.remove("oldest_position")
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use prost::{Message as _, bytes::Bytes};
    use tokio::time::timeout;
    use tonic::codec::Codec as _;

    use super::*;
    use crate::{
        client::connect_lazily,
        proto::v1::{WatchBookmark, WatchReady, WatchSnapshot},
        rpc::codec::Codec,
    };

    /// Makes a watch with a snapshot whose stream has these messages, and then is silent.
    fn watch(messages: Vec<Message>) -> Watch {
        let frames = messages.into_iter().map(|message| {
            let message = WatchTransitionsResponse {
                message: Some(message),
            };
            let message = message.encode_to_vec();
            let mut frame = vec![0];
            frame.extend((message.len() as u32).to_be_bytes());
            frame.extend(message);
            Ok::<_, Status>(Frame::data(Bytes::from(frame)))
        });
        let frames: Vec<_> = frames.collect();
        let body = StreamBody::new(stream::iter(frames).chain(stream::pending()));
        let mut codec = Codec::<WatchTransitionsRequest, WatchTransitionsResponse>::default();
        let messages =
            Streaming::new_response(codec.decoder(), body, http::StatusCode::OK, None, None);
        let request = WatchTransitionsRequest {
            with_snapshot: true,
            ..WatchTransitionsRequest::default()
        };
        let mut watch = Watch::new(&connect_lazily("127.0.0.1:1").unwrap(), request);
        watch.stream = Some(Opened::new(messages));
        watch
    }

    fn snapshot(states: usize) -> Message {
        Message::Snapshot(WatchSnapshot {
            states: vec![WatchedState::default(); states],
        })
    }

    fn bookmark() -> Message {
        Message::Bookmark(WatchBookmark {
            position: "p".into(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_bookmark_within_a_snapshot_does_not_complete_it() {
        let mut watch = watch(vec![snapshot(1), bookmark()]);
        assert!(matches!(watch.next().await.unwrap(), Event::Snapshot(_)));
        let next = watch.next().await.unwrap();
        assert!(matches!(next, Event::Interrupted(_)), "{next:?}");
        assert_eq!(watch.position(), None);
        assert!(watch.request.with_snapshot, "the copy is not complete");
    }

    #[tokio::test(start_paused = true)]
    async fn empty_parts_of_a_snapshot_are_left_out() {
        let ready = Message::Ready(WatchReady::default());
        let mut watch = watch(vec![snapshot(0), snapshot(2), snapshot(0), ready]);
        match watch.next().await.unwrap() {
            Event::Snapshot(states) => assert_eq!(states.len(), 2),
            other => panic!("{other:?}"),
        }
        assert!(matches!(watch.next().await.unwrap(), Event::Ready));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_noticed_although_calls_are_dropped() {
        let mut watch = watch(Vec::new());
        let begin = Instant::now();
        let event = loop {
            if let Ok(event) = timeout(Duration::from_secs(1), watch.next()).await {
                break event.unwrap();
            }
            assert!(begin.elapsed() < SILENCE * 2, "it is never noticed");
        };
        assert!(matches!(event, Event::Interrupted(_)), "{event:?}");
        assert!(begin.elapsed() >= SILENCE);
    }
}
