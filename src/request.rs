//! What surrounds every call: a request id, a deadline, and what is counted and logged of it.

mod deadline;
mod facts;
mod watched;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument;
use uuid::Uuid;

pub use self::facts::{Facts, correlates, fails_because, is_for, made_with, touches};
use self::watched::{Watched, WatchedBody};
use crate::{
    audit::Audit,
    error::{Error, internal},
    limits::ContentLimits,
    metrics::{Method, Metrics},
    trace,
};

/// The header of an answer that carries the request id.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// The header by which callers say to which of their affairs a call belongs, and how
/// much of it the log keeps, in bytes.
const CORRELATION_ID_HEADER: &str = "x-correlation-id";
const MAX_CORRELATION_ID: usize = 128;

tokio::task_local! {
    static CURRENT: Current;
}

/// What everything that serves a call may ask for.
#[derive(Debug, Clone)]
struct Current {
    id: Uuid,
    limits: ContentLimits,
    facts: Arc<Facts>,
}

/// The id of the call that is being served. Outside of one it is a new id.
#[must_use]
pub fn id() -> Uuid {
    let current = CURRENT.try_with(|current| current.id);
    current.unwrap_or_else(|_| Uuid::now_v7())
}

/// For which namespace the call is that is being served, once that is known.
#[must_use]
pub fn namespace() -> Option<String> {
    let current = CURRENT.try_with(|current| current.facts.namespace.get().cloned());
    current.ok().flatten()
}

/// What a request may hold. Outside of a call it is what the contract allows.
#[must_use]
pub fn limits() -> ContentLimits {
    let current = CURRENT.try_with(|current| current.limits);
    current.unwrap_or_default()
}

/// Whether a call is for health or reflection, which tell nobody anything of a
/// tenant, and answer whoever asks, whatever else is going on.
#[must_use]
pub fn is_for_everybody(path: &str) -> bool {
    path.starts_with("/grpc.")
}

/// Gives every call a request id and holds it to a deadline: the caller's, from
/// the header `grpc-timeout`, and at most `longest`. A call that panics is INTERNAL.
/// How it ends is counted, and logged if it failed, was slow, or is to be kept.
#[derive(Clone)]
pub struct CallLayer {
    /// How long a call may take at most.
    pub longest: Duration,
    /// From how long on a call is slow.
    pub slow: Duration,
    /// What a request may hold.
    pub limits: ContentLimits,
    /// What is counted.
    pub metrics: Metrics,
}

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`CallLayer`] makes.
#[derive(Clone)]
pub struct Calls<S> {
    inner: S,
    layer: CallLayer,
}

impl<S, B> Service<http::Request<B>> for Calls<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if let Err(status) = require_grpc(&request) {
            let mut refusal = http::Response::new(Body::empty());
            *refusal.status_mut() = status;
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        let watched = self.layer.begin(&request);
        let metrics = self.layer.metrics.clone();
        let current = Current {
            id: watched.id,
            limits: self.layer.limits,
            facts: Arc::clone(&watched.facts),
        };
        let patience = match deadline::patience(request.headers(), self.layer.longest) {
            Ok(patience) => patience,
            Err(error) => {
                let refusal = CURRENT.sync_scope(current, || Status::from(error).into_http());
                return Box::pin(std::future::ready(Ok(finish(refusal, watched))));
            }
        };
        // The clock starts here, not when the future is first polled.
        let inner = &mut self.inner;
        let span = watched.span.clone();
        let call = CURRENT.sync_scope(current.clone(), || inner.call(request));
        let call = tokio::time::timeout(patience, call).instrument(span);
        let call = AssertUnwindSafe(call).catch_unwind();
        Box::pin(CURRENT.scope(current, async move {
            let response = match call.await {
                Ok(Ok(response)) => response?,
                Ok(Err(_)) => Status::from(Error::DeadlineExceeded).into_http(),
                Err(_) => {
                    metrics.panics().inc();
                    Status::from(internal("it panicked")).into_http()
                }
            };
            Ok(finish(response, watched))
        }))
    }
}

impl CallLayer {
    fn begin<B>(&self, request: &http::Request<B>) -> Watched {
        let facts = Facts::default();
        if let Some(correlation_id) = header_correlation_id(request.headers()) {
            let _ = facts.correlation_id.set(correlation_id);
        }
        let method = Method::from_path(request.uri().path());
        Watched {
            span: trace::call(method, request.headers()),
            id: Uuid::now_v7(),
            facts: Arc::new(facts),
            audit: Audit::of(request),
            slow: self.slow,
            running: Some(self.metrics.calls().begin(method)),
        }
    }
}

/// Makes sure that a call is one of gRPC, as no browser makes them by itself: it would
/// show its owner's certificate to whoever asks it to.
fn require_grpc<B>(request: &http::Request<B>) -> Result<(), StatusCode> {
    if request.method() != http::Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|it| it.to_str().ok());
    let rest = content_type.and_then(|it| it.strip_prefix("application/grpc"));
    match rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';'])) {
        true => Ok(()),
        false => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

fn header_correlation_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CORRELATION_ID_HEADER)?.to_str().ok()?;
    Some(text.chars().take(MAX_CORRELATION_ID).collect())
}

/// Puts an answer into our terms, and ends the call; if its answer comes in pieces,
/// when the last of them has been taken.
fn finish(mut response: http::Response<Body>, watched: Watched) -> http::Response<Body> {
    let mut failure = Status::from_header_map(response.headers());
    if let Some(ours) = failure.as_ref().and_then(in_our_terms) {
        response = ours.clone().into_http();
        failure = Some(ours);
    }
    if let Ok(id) = HeaderValue::try_from(watched.id.to_string()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    if failure.is_none() && watched.is_stream() {
        return response.map(|body| {
            let watched = Some(watched);
            Body::new(WatchedBody { body, watched })
        });
    }
    watched.end(failure.as_ref());
    response
}

/// Puts into our terms what tonic itself answers to a message that is over its
/// limit, which is its only OUT_OF_RANGE, or that is not framed as it must be,
/// which is INTERNAL without the details that every INTERNAL of ours has, or that
/// breaks off because the connection does, which is its only UNKNOWN.
fn in_our_terms(failure: &Status) -> Option<Status> {
    match failure.code() {
        Code::OutOfRange => Some(Error::MessageTooLarge(limits().message_bytes).into()),
        Code::Internal if failure.details().is_empty() => Some(Error::Malformed(None).into()),
        Code::Unknown => Some(Status::cancelled("the caller went away")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    #[test]
    fn what_is_no_call_of_grpc_is_refused_as_http_does() {
        let request = |method: &str, content_type: &str| {
            let request = http::Request::builder().method(method);
            let request = request.header(CONTENT_TYPE, content_type).body(());
            require_grpc(&request.unwrap()).err()
        };
        for good in ["", "+proto", ";charset=utf-8"] {
            assert_eq!(request("POST", &format!("application/grpc{good}")), None);
        }
        let not_allowed = Some(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(request("GET", "application/grpc"), not_allowed);
        assert_eq!(request("PUT", "application/grpc"), not_allowed);
        for bad in ["text/plain", "application/json", "application/grpc-web", ""] {
            let unsupported = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert_eq!(request("POST", bad), unsupported, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_call_that_panics_is_internal_and_counted() {
        let metrics = Metrics::new().unwrap();
        let layer = CallLayer {
            longest: Duration::from_secs(60),
            slow: Duration::from_secs(60),
            limits: ContentLimits::default(),
            metrics: metrics.clone(),
        };
        let broken = service_fn(|request: http::Request<()>| async move {
            assert_ne!(request.uri().path(), "/a.B/C", "a fault of ours");
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        });
        let service = ServiceBuilder::new().layer(layer).service(broken);
        let request = http::Request::post("/a.B/C").header(CONTENT_TYPE, "application/grpc");
        let request = request.body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("fault"), "{status:?}");
        assert_eq!(metrics.panics().get(), 1);
    }
}
