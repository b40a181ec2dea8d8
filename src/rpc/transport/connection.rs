//! One HTTP/2 connection, from its preface until it closes.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::http2,
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{
    backpressure::{Throttled, in_rounds},
    coalesce::Coalescing,
    flood::Guarded,
    goaway::CloseReason,
    header_block::PendingHeaders,
    peer::Peer,
    preface_timeout::expect_preface,
};
use crate::{
    rpc::limits::ConnectionLimits,
    util::{backoff::jittered, panics::contain},
};

/// Flow-control windows of a stream and of a connection, in bytes. A usual batch fits into
/// the first, and several batches into the second. They bound the memory that one client
/// can fill.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// How many bytes of a response HTTP/2 takes before the client has room for them. The rest stays in
/// the body, where the byte budget counts it.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// How many times the limit of headers h2 accepts before it answers by itself. With the default
/// limit that is 128 KiB, twice what proxies forward.
const HEADER_MARGIN: usize = 8;

/// Maximum number of streams that the client has reset and hyper has not accepted yet.
/// [`super::flood`] slows down resets. This limit must never apply, because h2 counts all resets
/// that arrive in one read.
const MAX_PENDING_RESETS: usize = 100_000;
/// Maximum number of streams that h2 refuses on one connection, because they are malformed
/// or over the limit of streams. A client that does not know the limit yet may open
/// thousands, and loses none of its other calls.
const MAX_REFUSED_STREAMS: usize = 10_000;

/// Time to close a connection that has no admitted calls.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs each call of a connection in a task of its own, and counts the panics of tasks. The call
/// layer catches those of handlers; this leaves those of bodies.
#[derive(Clone)]
struct Tasks {
    panics: IntCounter,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let panics = self.panics.clone();
        tokio::spawn(async move { contain("call", &panics, task).await });
    }
}

/// A service that a connection can serve.
pub trait Serve:
    Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Serve for S where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// Serves a connection until the client closes it, a limit closes it, or `shutdown`
/// completes. The last two send a GOAWAY and give calls in progress a grace period.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    service: impl Serve,
    limits: &ConnectionLimits,
    panics: IntCounter,
    shutdown: impl Future<Output = ()>,
) {
    let pauses = peer.slot.metrics().paused_by_backpressure.clone();
    let stream = Throttled::new(stream, Arc::clone(&peer.load), pauses);
    let headers = PendingHeaders::new(header_list_bytes(limits), limits.handshake_timeout);
    let slot = Arc::clone(&peer.slot);
    let (stream, close_reason) = Guarded::new(stream, limits.streams, headers, slot);
    let (stream, preface_expired) = expect_preface(stream, limits.handshake_timeout);
    let stream = TokioIo::new(Coalescing::from(stream));
    let service = call_service(Arc::clone(&peer), service);
    let mut connection = pin!(builder(limits, panics).serve_connection(stream, service));
    let grace = tokio::select! {
        // A connection that the client breaks is not an error of the service.
        _ = in_rounds(connection.as_mut(), &peer.load) => None,
        () = preface_expired => None,
        grace = poll_limits(&peer, limits) => Some(grace),
        () = peer.slot.retired() => Some(limits.grace),
        () = shutdown => Some(limits.grace),
    };
    if let Some(grace) = grace {
        connection.as_mut().graceful_shutdown();
        peer.closing.cancel();
        let _ = timeout(grace, in_rounds(connection, &peer.load)).await;
    }
    match close_reason.get() {
        Some(CloseReason::RefusedCalls) => peer.slot.note_refused_calls(peer.address),
        Some(_) => peer.slot.note_closed(peer.address),
        None => {}
    }
}

/// Returns the service that hyper calls when it has read the headers of a call. It runs the service
/// below in a task of the call.
fn call_service(
    peer: Arc<Peer>,
    service: impl Serve,
) -> impl HttpService<Incoming, ResBody = Body, Error = h2::Error, Future: Send + 'static> {
    service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&peer));
        request.extensions_mut().insert(peer.load.begin());
        let (service, slot) = (service.clone(), Arc::clone(&peer.slot));
        // In a box, because hyper and tokio move the future of a call several times.
        Box::pin(async move {
            // The connection is about to close. Its client may retry what the service has not begun,
            // which costs no more than a reset.
            if slot.has_too_many_refused_calls() {
                return Err(h2::Error::from(h2::Reason::REFUSED_STREAM));
            }
            let response = service.oneshot(request).await;
            response.map_err(|never| match never {})
        })
    })
}

fn builder(limits: &ConnectionLimits, panics: IntCounter) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks { panics });
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(header_list_bytes(limits)).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_REFUSED_STREAMS)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        // gRPC clients do not read the header `date`.
        .auto_date_header(false);
    builder
}

/// Returns the size of headers from which h2 answers by itself, with a bare HTTP 431. It is above
/// the limit, so that the call layer can answer with a gRPC status.
fn header_list_bytes(limits: &ConnectionLimits) -> usize {
    limits.header_bytes.saturating_mul(HEADER_MARGIN)
}

/// Checks the limits of a connection periodically. Completes when it has to close, with
/// the grace period for its calls.
async fn poll_limits(peer: &Peer, limits: &ConnectionLimits) -> Duration {
    let accepted_at = Instant::now();
    // Up to a tenth younger, because clients that connected together, after a restart,
    // would otherwise reconnect together.
    let max_age = limits
        .max_age
        .map(|age| age * 8 / 10 + jittered(age * 2 / 10));
    let close_timeout = CLOSE_TIMEOUT.min(limits.grace);
    let interval = limits.check_interval.min(limits.unauthenticated_timeout);
    loop {
        sleep(interval).await;
        let age = accepted_at.elapsed();
        if peer.is_stalled() {
            return Duration::ZERO;
        }
        if age >= limits.unauthenticated_timeout && peer.slot.is_over_limit() {
            peer.slot.refuse();
            return close_timeout;
        }
        if peer.idle_for().is_some_and(|idle| idle >= limits.max_idle) {
            return close_timeout;
        }
        if max_age.is_some_and(|max_age| age >= max_age) {
            return limits.grace;
        }
    }
}
