//! One connection, from the moment it is there until its time has come.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{coalesce::Coalescing, peer::Peer, preface_timeout::PrefaceReader};
use crate::{rpc::limits::ConnectionLimits, util::backoff::jittered};

/// What a call, and what a connection, may send before it has to wait until
/// something of it was read, in bytes: a usual batch, and some of them. It bounds
/// the memory that a client takes which sends without end.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// How many calls that the client took back may wait until we have noticed: who
/// takes back more at a time is after our processor, and loses the connection
/// (CVE-2023-44487). And how many that we broke off are remembered.
const RESET_STREAMS: usize = 20;
const BROKEN_STREAMS: usize = 64;

/// How long a client has to go that has no calls under way.
const GOODBYE: Duration = Duration::from_secs(5);

/// How old a connection gets that is one too many: it is told so, and a load balancer
/// asks for the health, in much less.
const SURPLUS_AGE: Duration = Duration::from_secs(5);

/// A service as a connection needs it.
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

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody has called for a long time.
    Idle,
    /// It is old, or the service stops: calls under way end first.
    Gentle,
    /// The other end does not take what it asked for.
    Sudden,
}

/// Serves a connection until the other end closes it, or its time has come, or
/// `drain` ends. Then calls under way may end, for so long as `limits` allow.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    service: impl Serve,
    limits: &ConnectionLimits,
    drain: impl Future<Output = ()>,
) {
    let carried = Arc::clone(&peer);
    let service = service.map_request(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&carried));
        request
    });
    let (stream, preface) = PrefaceReader::new(stream);
    let stream = TokioIo::new(Coalescing::from(stream));
    let service = TowerToHyperService::new(service);
    let mut connection = pin!(builder(limits).serve_connection(stream, service));
    let end = tokio::select! {
        // How a connection ends is the other end's affair.
        _ = &mut connection => return,
        () = preface.fails() => return,
        end = watch(&peer, limits) => end,
        () = drain => End::Gentle,
    };
    let grace = match end {
        End::Idle => GOODBYE.min(limits.grace),
        End::Gentle => limits.grace,
        End::Sudden => return,
    };
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(grace, connection).await;
}

fn builder(limits: &ConnectionLimits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // A large batch arrives without waiting to be let on.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(BROKEN_STREAMS)
        // Clients that are gone without a word are noticed.
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        // Nobody who speaks gRPC reads it.
        .auto_date_header(false);
    builder
}

/// Looks at a connection now and then, until its time has come.
async fn watch(peer: &Peer, limits: &ConnectionLimits) -> End {
    let begun = tokio::time::Instant::now();
    // A little younger, so that clients that came together, after a restart, do
    // not all go at once.
    let max_age = match peer.is_surplus {
        true => Some(SURPLUS_AGE),
        false => limits
            .max_age
            .map(|age| age * 8 / 10 + jittered(age * 2 / 10)),
    };
    let check_interval = limits
        .check_interval
        .min(max_age.unwrap_or(limits.check_interval));
    loop {
        tokio::time::sleep(check_interval).await;
        if peer.is_stalled() {
            return End::Sudden;
        }
        let idle_for = peer.idle_for();
        if idle_for.is_some_and(|time| time >= limits.max_idle) {
            return End::Idle;
        }
        let is_old = max_age.is_some_and(|age| begun.elapsed() >= age);
        if is_old {
            return End::Gentle;
        }
    }
}
