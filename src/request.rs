//! What surrounds every call: a request id, a deadline, and what the log keeps of it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use uuid::Uuid;

use crate::{audit::Audit, error::Error, limits::ContentLimits};

/// The header of an answer that carries the request id.
const REQUEST_ID_HEADER: &str = "x-request-id";

tokio::task_local! {
    static CURRENT: Current;
}

/// What everything that serves a call may ask for.
#[derive(Debug, Clone, Copy)]
struct Current {
    id: Uuid,
    limits: ContentLimits,
}

/// The id of the call that is being served. Outside of one it is a new id.
#[must_use]
pub fn id() -> Uuid {
    let current = CURRENT.try_with(|current| current.id);
    current.unwrap_or_else(|_| Uuid::now_v7())
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
/// the header `grpc-timeout`, and at most `longest`.
#[derive(Debug, Clone)]
pub struct CallLayer {
    /// How long a call may take at most.
    pub longest: Duration,
    /// What a request may hold.
    pub limits: ContentLimits,
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
#[derive(Debug, Clone)]
pub struct Calls<S> {
    inner: S,
    layer: CallLayer,
}

impl<S, B> Service<http::Request<B>> for Calls<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let CallLayer { longest, limits } = self.layer;
        let id = Uuid::now_v7();
        let patience = asked_timeout(request.headers())
            .map_or(longest, |asked| asked.saturating_sub(TICK).min(longest));
        let audit = Audit::of(&request);
        let current = Current { id, limits };
        // The clock starts here, not when the future is first polled.
        let inner = &mut self.inner;
        let call = CURRENT.sync_scope(current, || inner.call(request));
        let call = tokio::time::timeout(patience, call);
        Box::pin(CURRENT.scope(current, async move {
            let mut response = match call.await {
                Ok(response) => response?,
                Err(_) => Status::from(Error::DeadlineExceeded).into_http(),
            };
            let mut failure = Status::from_header_map(response.headers());
            if let Some(ours) = failure.as_ref().and_then(in_our_terms) {
                let extensions = std::mem::take(response.extensions_mut());
                response = ours.clone().into_http();
                response.extensions_mut().extend(extensions);
                failure = Some(ours);
            }
            audit.record(id, &response, failure.as_ref());
            if let Ok(id) = HeaderValue::try_from(id.to_string()) {
                response.headers_mut().insert(REQUEST_ID_HEADER, id);
            }
            Ok(response)
        }))
    }
}

/// Puts into our terms what tonic itself answers to a message that is over its
/// limit, which is its only OUT_OF_RANGE, or that is not framed as it must be,
/// which is INTERNAL without the details that every INTERNAL of ours has.
fn in_our_terms(failure: &Status) -> Option<Status> {
    match failure.code() {
        Code::OutOfRange => Some(Error::MessageTooLarge(limits().message_bytes).into()),
        Code::Internal if failure.details().is_empty() => Some(Error::Malformed(None).into()),
        _ => None,
    }
}

/// tonic holds calls to `grpc-timeout` too, but answers CANCELLED. We are one
/// tick of tokio's clock before it, and answer DEADLINE_EXCEEDED.
const TICK: Duration = Duration::from_millis(1);

/// Reads `grpc-timeout`: up to 8 digits and a unit.
fn asked_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_read_in_every_unit_and_nothing_else() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("123456789S", None),
            ("5", None),
            ("S", None),
            ("", None),
            ("5x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(asked_timeout(&headers), expected, "{text:?}");
        }
    }
}
