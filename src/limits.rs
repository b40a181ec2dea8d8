//! What callers may take of the service, all together and each alone.
//!
//! Whatever is over a limit is turned away at once, and told so: what waits without
//! bound is lost when it matters.

use std::{
    mem,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    error::{Error, internal},
    json,
    request::is_for_everybody,
    transport::peer::{OpenCall, Peer},
    validate::{MAX_BATCH, MAX_ROWS},
};

/// How long the other end has to take an answer, beyond the longest call.
const TAKING: Duration = Duration::from_secs(10);

/// All limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of connections.
    pub connection: ConnectionLimits,
    /// Of what a request may hold.
    pub content: ContentLimits,
    /// How many calls may be under way; `None` for any number.
    pub requests: Option<usize>,
    /// How many bytes the requests of all calls that are under way may have
    /// together; `None` for any number.
    pub request_bytes: Option<usize>,
    /// How many calls a token may make in a second; `None` for any number.
    pub rate: Option<NonZeroU32>,
}

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// How many there may be.
    pub connections: usize,
    /// How many calls each may have under way; clients let more wait.
    pub streams: u32,
    /// How many bytes of headers a call may have.
    pub header_bytes: u32,
    /// How often the other end is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// How long it has to answer that.
    pub keepalive_timeout: Duration,
    /// For how long it may be without calls.
    pub max_idle: Duration,
    /// How old it may get; `None` for any age.
    pub max_age: Option<Duration>,
    /// How long calls that are under way may go on on a connection whose time has come.
    pub grace: Duration,
    /// How often it is looked at.
    pub look: Duration,
}

/// Limits of what a request may hold. Those of the contract are the highest.
#[derive(Debug, Clone, Copy)]
pub struct ContentLimits {
    /// How many bytes a message may have.
    pub message_bytes: usize,
    /// How many bytes of text a JSON document may have.
    pub json_bytes: usize,
    /// How many levels it may have.
    pub json_depth: usize,
    /// How many items a batch may have.
    pub batch_items: usize,
    /// How many rows a page may have.
    pub page_rows: i32,
}

/// The longest message, in bytes: what gRPC clients take and send by default.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

impl Default for ContentLimits {
    fn default() -> Self {
        ContentLimits {
            message_bytes: MAX_MESSAGE,
            json_bytes: json::MAX_BYTES,
            json_depth: json::MAX_DEPTH,
            batch_items: MAX_BATCH,
            page_rows: MAX_ROWS,
        }
    }
}

/// Turns calls away while too many are under way, but never those for health and
/// reflection, which have to answer most of all then.
#[derive(Clone)]
pub struct LimitLayer {
    room: Option<Arc<Semaphore>>,
    memory: Arc<Memory>,
    patience: Duration,
}

impl LimitLayer {
    /// A layer for calls of which none takes longer than `longest`.
    #[must_use]
    pub fn new(limits: &Limits, longest: Duration) -> Self {
        LimitLayer {
            room: limits.requests.map(|most| Arc::new(Semaphore::new(most))),
            memory: Arc::new(Memory {
                used: AtomicUsize::new(0),
                most: limits.request_bytes.unwrap_or(usize::MAX),
            }),
            patience: longest + TAKING,
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            limits: self.clone(),
        }
    }
}

/// The service that [`LimitLayer`] makes.
#[derive(Clone)]
pub struct Limited<S> {
    inner: S,
    limits: LimitLayer,
}

impl<S> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let held = match self.limits.admit(&request) {
            Ok(held) => Arc::new(held),
            Err(error) => return Box::pin(async { Ok(Status::from(error).into_http()) }),
        };
        // The one that is ready, not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let holding = |counts| {
                let held = Arc::clone(&held);
                move |body| Body::new(Held { body, held, counts })
            };
            let response = inner.call(request.map(holding(true))).await?;
            Ok(response.map(holding(false)))
        })
    }
}

impl LimitLayer {
    fn admit<B>(&self, request: &http::Request<B>) -> Result<Holding, Error> {
        let peer = request.extensions().get::<Arc<Peer>>();
        let peer = peer.ok_or_else(|| internal("the request did not come over a connection"))?;
        let is_for_everybody = is_for_everybody(request.uri().path());
        if peer.is_surplus && !is_for_everybody {
            return Err(Error::TooManyConnections);
        }
        let room = self.room.as_ref().filter(|_| !is_for_everybody);
        let permit = room.map(|room| Arc::clone(room).try_acquire_owned());
        let permit = permit.transpose().map_err(|_| Error::Overloaded)?;
        Ok(Holding {
            bytes: AtomicUsize::new(0),
            memory: Arc::clone(&self.memory),
            _permit: permit,
            _call: peer.begin((!is_for_everybody).then_some(self.patience)),
        })
    }
}

/// The bytes of all requests that are under way.
struct Memory {
    used: AtomicUsize,
    most: usize,
}

/// What a call takes, from its first byte until its answer has been taken.
struct Holding {
    bytes: AtomicUsize,
    memory: Arc<Memory>,
    _permit: Option<OwnedSemaphorePermit>,
    _call: OpenCall,
}

impl Holding {
    /// Notes that so many more bytes have come.
    fn take(&self, bytes: usize) -> Result<(), Error> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let used = self.memory.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match used <= self.memory.most {
            true => Ok(()),
            false => Err(Error::Overloaded),
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A body of a call, which holds what the call takes until it is dropped.
struct Held {
    body: Body,
    held: Arc<Holding>,
    /// Whether its bytes count as they come: those of a request do.
    counts: bool,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = frame.as_ref().filter(|_| self.counts) {
            self.held.take(frame.data_ref().map_or(0, Bytes::len))?;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
