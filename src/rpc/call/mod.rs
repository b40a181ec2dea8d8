//! The layer around every call: request id, deadline, panics, metrics and logs.

mod audit_log;
mod call_log;
mod cutoff;
mod deadline;
mod our_status;
mod protocol;
mod repeated_lines;
mod response;
mod severity;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::HeaderMap;
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument;

use self::{audit_log::AuditLog, call_log::CallLog};
pub use self::{cutoff::Cutoff, deadline::Deadline, repeated_lines::RepeatedLines};
use super::{context::CallContext, limits::MAX_INFRASTRUCTURE_MESSAGE, request_head::target};
use crate::{
    domain::{
        error::{Error, internal},
        limits::ContentLimits,
        page_token_key::PageTokenKey,
    },
    ops::{metrics::Metrics, spans},
    proto::{Method, is_infrastructure_rpc},
};

/// The request header with the caller's correlation id.
const CORRELATION_ID_HEADER: &str = "x-correlation-id";

/// Gives every call a request id and a deadline: the caller's, from the header
/// `grpc-timeout`, but at most `max_duration`. A panic becomes INTERNAL. The end of the
/// call is counted, and logged if it failed, was slow, or belongs in the audit log.
#[derive(Clone)]
pub struct CallLayer {
    /// Maximum duration of a call.
    pub max_duration: Duration,
    /// Duration from which a call is logged as slow.
    pub slow: Duration,
    /// Limits of what a request may contain.
    pub limits: ContentLimits,
    /// The key that signs page tokens, once it is read from the database.
    pub page_token_key: Arc<OnceLock<PageTokenKey>>,
    /// Maximum size of the headers of a call, in bytes.
    pub header_bytes: usize,
    /// The metrics of the service.
    pub metrics: Metrics,
    /// The lines of the log that are counted instead of logged.
    pub repeated_lines: RepeatedLines,
    /// Ends the calls that a shutdown no longer waits for.
    pub cutoff: Cutoff,
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`CallLayer`] makes.
#[derive(Clone)]
pub struct CallService<S> {
    inner: S,
    layer: CallLayer,
}

impl<S, B> Service<http::Request<B>> for CallService<S>
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

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let call = CallContext::new(correlation_id(request.headers()));
        let log = self.layer.begin(&request, call.clone());
        let max_message = match is_infrastructure_rpc(request.uri().path()) {
            true => MAX_INFRASTRUCTURE_MESSAGE,
            false => self.layer.limits.message_bytes,
        };
        let timeout = match call.enter(|| self.layer.check(&request)) {
            Ok(timeout) => timeout,
            Err(rejection) => {
                let rejection = response::finish(*rejection, log, max_message);
                return Box::pin(std::future::ready(Ok(rejection)));
            }
        };
        request.extensions_mut().insert(self.layer.limits);
        let deadline = Instant::now().checked_add(timeout);
        // Only the beginning of a stream has to be in time.
        let timeout = timeout.min(self.layer.max_duration);
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(Deadline(deadline));
        }
        if let Some(key) = self.layer.page_token_key.get() {
            request.extensions_mut().insert(*key);
        }
        // The clock starts here, not when the future is first polled.
        let work = call.enter(|| tokio::time::timeout(timeout, self.inner.call(request)));
        let work = AssertUnwindSafe(work.instrument(log.span.clone())).catch_unwind();
        let panics = self.layer.metrics.panics().clone();
        let cutoff = self.layer.cutoff.clone();
        Box::pin(call.scope(async move {
            let response = match cutoff.or_cut_off(work).await {
                Some(Ok(Ok(response))) => response?,
                Some(Ok(Err(_))) => Status::from(Error::DeadlineExceeded).into_http(),
                None => Status::from(Error::ShuttingDown).into_http(),
                Some(Err(_)) => {
                    panics.inc();
                    Status::from(internal("the call panicked")).into_http()
                }
            };
            Ok(response::finish(response, log, max_message))
        }))
    }
}

impl CallLayer {
    fn begin<B>(&self, request: &http::Request<B>, context: CallContext) -> CallLog {
        let method = Method::from_path(target(request.uri()));
        CallLog {
            span: spans::call(method, request.headers()),
            context,
            audit: AuditLog::new(request),
            slow: self.slow,
            running: Some(self.metrics.calls().begin(method)),
            repeated_lines: self.repeated_lines.clone(),
        }
    }

    /// Checks the headers of a request. Returns how long the call may take, or its rejection.
    fn check<B>(&self, request: &http::Request<B>) -> Result<Duration, Box<http::Response<Body>>> {
        protocol::check(request, self.header_bytes)
            .map_err(|rejection| Box::new(rejection.into_response()))?;
        let is_stream = Method::from_path(target(request.uri())).is_stream();
        let max_duration = match is_stream {
            true => Duration::MAX,
            false => self.max_duration,
        };
        deadline::timeout(request.headers(), max_duration)
            .map_err(|error| Box::new(Status::from(error).into_http()))
    }
}

fn correlation_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(CORRELATION_ID_HEADER)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::header::CONTENT_TYPE;
    use tonic::Code;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    fn layer(metrics: &Metrics) -> CallLayer {
        CallLayer {
            max_duration: Duration::from_secs(60),
            slow: Duration::from_secs(60),
            limits: ContentLimits::default(),
            page_token_key: Arc::default(),
            header_bytes: 16 * 1024,
            metrics: metrics.clone(),
            repeated_lines: RepeatedLines::default(),
            cutoff: Cutoff::default(),
        }
    }

    #[tokio::test]
    async fn a_request_has_the_deadline_of_its_call() {
        let now = Instant::now();
        for (timeout, earliest, latest) in [("2S", 1, 3), ("1H", 59, 61)] {
            let checked = service_fn(move |request: http::Request<()>| async move {
                let Deadline(deadline) = *request.extensions().get().unwrap();
                assert!(deadline > now + Duration::from_secs(earliest));
                // A second is for a slow machine.
                assert!(deadline < Instant::now() + Duration::from_secs(latest));
                Ok::<_, Infallible>(http::Response::new(Body::empty()))
            });
            let metrics = Metrics::new().unwrap();
            let service = ServiceBuilder::new()
                .layer(layer(&metrics))
                .service(checked);
            let request = http::Request::post("/a.B/C").header(CONTENT_TYPE, "application/grpc");
            let request = request.header("grpc-timeout", timeout).body(()).unwrap();
            service.oneshot(request).await.unwrap();
            assert_eq!(metrics.panics().get(), 0);
        }
    }

    #[tokio::test]
    async fn a_call_that_panics_is_internal_and_counted() {
        let metrics = Metrics::new().unwrap();
        let layer = layer(&metrics);
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
