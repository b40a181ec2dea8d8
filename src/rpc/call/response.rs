//! Completes a response: our own statuses, the request id, the end of the call's log.

use http::HeaderValue;
use tonic::{Code, Status, body::Body};

use super::call_log::{CallLog, LoggedBody};
use crate::{domain::error::Error, rpc::batch_request::ItemCause, util::error_chain::error_chain};

/// The response header with the request id.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// Completes a response and ends the call's log; that of a stream ends with the stream.
pub(super) fn finish(
    mut response: http::Response<Body>,
    log: CallLog,
    max_message: usize,
) -> http::Response<Body> {
    let cause = cause(&response);
    let mut failure = Status::from_header_map(response.headers());
    if let Some(ours) = failure.as_ref().and_then(|it| replace(it, max_message)) {
        response = ours.clone().into_http();
        failure = Some(ours);
    }
    if let Ok(id) = HeaderValue::try_from(log.context.request_id().to_string()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    if failure.is_none() && log.is_stream() {
        return response.map(|body| {
            let log = Some(log);
            Body::new(LoggedBody { body, log })
        });
    }
    log.end(failure.as_ref(), cause.as_deref());
    response
}

/// Returns the internal reason of a failed call or item.
fn cause(response: &http::Response<Body>) -> Option<String> {
    let extensions = response.extensions();
    let status = extensions.get::<Status>();
    if let Some(source) = status.and_then(std::error::Error::source) {
        return Some(error_chain(source));
    }
    let item = extensions.get::<ItemCause>()?;
    Some(error_chain(&*item.0))
}

/// Replaces the statuses of tonic itself:
/// - OUT_OF_RANGE, which tonic uses only for a message over its limit;
/// - INTERNAL without details, which ours always have, for a message that is framed badly;
/// - UNKNOWN, which tonic uses only for a message cut off with its connection.
fn replace(failure: &Status, max_message: usize) -> Option<Status> {
    match failure.code() {
        Code::OutOfRange => Some(Error::MessageTooLarge(max_message).into()),
        Code::Internal if failure.details().is_empty() => Some(Error::Malformed(None).into()),
        Code::Unknown => Some(Status::cancelled("the caller went away")),
        _ => None,
    }
}
