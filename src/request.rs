//! What surrounds every call: a request id and a deadline.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use uuid::Uuid;

use crate::error::Error;

/// The header of an answer that carries the request id.
const REQUEST_ID_HEADER: &str = "x-request-id";

tokio::task_local! {
    static REQUEST_ID: Uuid;
}

/// The id of the call that is being served. Outside of one it is a new id.
#[must_use]
pub fn id() -> Uuid {
    REQUEST_ID
        .try_with(|id| *id)
        .unwrap_or_else(|_| Uuid::now_v7())
}

/// Gives every call a request id and holds it to a deadline: the caller's, from
/// the header `grpc-timeout`, and at most `longest`.
#[derive(Debug, Clone)]
pub struct CallLayer {
    /// How long a call may take at most.
    pub longest: Duration,
}

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls {
            inner,
            longest: self.longest,
        }
    }
}

/// The service that [`CallLayer`] makes.
#[derive(Debug, Clone)]
pub struct Calls<S> {
    inner: S,
    longest: Duration,
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
        let id = Uuid::now_v7();
        let patience = asked_timeout(request.headers()).map_or(self.longest, |asked| {
            asked.saturating_sub(TICK).min(self.longest)
        });
        // The clock starts here, not when the future is first polled.
        let call = tokio::time::timeout(patience, self.inner.call(request));
        Box::pin(REQUEST_ID.scope(id, async move {
            let mut response = match call.await {
                Ok(response) => in_our_terms(response?),
                Err(_) => Status::from(Error::DeadlineExceeded).into_http(),
            };
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
fn in_our_terms(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::OutOfRange => {
            Status::from(Error::MessageTooLarge).into_http()
        }
        Some(status) if status.code() == Code::Internal && status.details().is_empty() => {
            Status::from(Error::Malformed(None)).into_http()
        }
        _ => response,
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
