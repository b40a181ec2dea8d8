//! Completes a response: our own statuses, the request id, the end of the call's log.

use http::HeaderValue;
use tonic::{Status, body::Body};

use super::{
    call_log::{CallLog, LoggedBody},
    our_status::replace,
};
use crate::rpc::{
    batch_request::ItemCause,
    status::{cause_text, internal_cause},
};

/// The response header that names the encodings of messages that the server accepts.
const ACCEPT_ENCODING_HEADER: &str = "grpc-accept-encoding";

/// The response header with the request id.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// Completes a response and ends the call's log; that of a stream ends with the stream.
pub(super) fn finish(
    mut response: http::Response<Body>,
    log: CallLog,
    max_message: usize,
) -> http::Response<Body> {
    let cause = cause(&response);
    // A status of tonic is in the headers only. To read ours from there would cost much of a reject.
    let ours = response.extensions_mut().remove::<Status>();
    let mut failure = ours.or_else(|| Status::from_header_map(response.headers()));
    if let Some(ours) = failure
        .as_ref()
        .and_then(|it| replace(it, &log.audit, max_message))
    {
        let accepted = response.headers_mut().remove(ACCEPT_ENCODING_HEADER);
        response = ours.clone().into_http();
        if let Some(accepted) = accepted {
            response
                .headers_mut()
                .insert(ACCEPT_ENCODING_HEADER, accepted);
        }
        failure = Some(ours);
    }
    if let Ok(id) = HeaderValue::try_from(log.context.request_id().to_string()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    if failure.is_none() && log.is_stream() {
        return response.map(|body| {
            let log = Some(log);
            Body::new(LoggedBody {
                body,
                log,
                max_message,
            })
        });
    }
    log.end(failure.as_ref(), cause.as_deref());
    response
}

/// Returns the internal reason of a failed call or item.
fn cause(response: &http::Response<Body>) -> Option<String> {
    let extensions = response.extensions();
    let cause = match extensions.get::<Status>().and_then(internal_cause) {
        Some(cause) => cause,
        None => &extensions.get::<ItemCause>()?.0,
    };
    Some(cause_text(&**cause))
}
