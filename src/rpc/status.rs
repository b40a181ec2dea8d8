//! Converts an [`Error`] into a gRPC status with details.

use std::{collections::HashMap, fmt, sync::Arc};

use tonic::Status;
use tonic_types::{ErrorDetails, ErrorInfo, RetryInfo, StatusExt};

use super::context;
use crate::{
    domain::{
        error::{Cause, DOMAIN, Description, Error, Help},
        violation::{Violation, Violations},
    },
    util::{backoff::spread, error_chain::error_chain, excerpt::excerpt},
};

/// Maximum size of a message, in bytes as it travels: percent-encoded, in a header. Clients
/// accept 8 KiB of headers, which the message, the details and a few others share.
const MAX_MESSAGE_BYTES: usize = 1500;

/// Maximum size of the details, in bytes. They travel in a header too, a third longer.
const MAX_DETAILS_BYTES: usize = 4000;

/// The same limit for the message of an error that has to be short.
const SHORT_MESSAGE_BYTES: usize = 300;

/// Maximum length of a cause in the log, in characters. PostgreSQL's errors repeat values of the
/// statement, and those are the caller's.
const MAX_CAUSE: usize = 1000;

/// The types of the details that a short error keeps.
const SHORT_DETAILS: [&str; 2] = [ErrorInfo::TYPE_URL, RetryInfo::TYPE_URL];

/// The header that the retry policies of gRPC libraries read; they do not read RetryInfo.
const PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";

/// The source of a status of ours: what the log shows and the caller is not told.
///
/// The statuses that tonic makes have sources, too: errors of hyper, caused by what a client sent.
/// The type tells them apart.
#[derive(Debug)]
pub(super) struct InternalCause(pub(super) Arc<Cause>);

impl fmt::Display for InternalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for InternalCause {}

/// Returns the internal cause of a status of ours.
pub(super) fn internal_cause(status: &Status) -> Option<&Arc<Cause>> {
    let source = std::error::Error::source(status)?;
    let InternalCause(cause) = source.downcast_ref()?;
    Some(cause)
}

/// Carries the cause as the source of the status, which tonic keeps among the extensions
/// of the response: the call log finds it there.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut description = error.describe();
        // Thousands of calls may be refused at the same time, for the same reason.
        description.retry_after = description.retry_after.map(spread);
        let mut status = with_details(error.to_string(), &description);
        if let Some(delay) = description.retry_after {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(PUSHBACK_HEADER, millis.into());
        }
        if matches!(error, Error::StatementTimeout(_)) {
            // gRPC libraries take a negative delay as "do not retry".
            status.metadata_mut().insert(PUSHBACK_HEADER, (-1).into());
        }
        if let Some(cause) = error.cause() {
            status.set_source(Arc::new(InternalCause(cause)));
        }
        status
    }
}

/// Makes the same status as a message, for one item of a batch.
impl From<Error> for tonic_types::Status {
    fn from(error: Error) -> Self {
        let status = Status::from(error);
        let fallback = tonic_types::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        };
        // The details of a status are a google.rpc.Status, encoded.
        prost::Message::decode(status.details()).unwrap_or(fallback)
    }
}

/// Returns the text of an internal cause for the log.
pub(super) fn cause_text(cause: &Cause) -> String {
    excerpt(&error_chain(cause), MAX_CAUSE)
}

/// Shortens the error of an item, for a batch whose errors do not fit into its response.
pub(super) fn shorten(status: &mut tonic_types::Status) {
    let message = std::mem::take(&mut status.message);
    status.message = shortened(message, SHORT_MESSAGE_BYTES);
    let is_kept = |type_url: &str| SHORT_DETAILS.contains(&type_url);
    status.details.retain(|detail| is_kept(&detail.type_url));
}

/// Returns the status. If its details are too large for a header, leaves out the last violations,
/// and what repeats the message.
fn with_details(text: String, description: &Description) -> Status {
    let code = tonic::Code::from_i32(description.code as i32);
    let message = shortened(text.clone(), MAX_MESSAGE_BYTES);
    let help = description.help.as_ref();
    let status = |count, text| {
        let details = with_help(description, help, count, text);
        Status::with_error_details(code, message.as_str(), details)
    };
    let violations = match help {
        Some(Help::BadRequest(Violations { listed, .. })) => listed.len(),
        _ => 0,
    };
    let mut fitting = status(usize::MAX, text.as_str());
    for count in (0..=violations).rev() {
        if fitting.details().len() <= MAX_DETAILS_BYTES {
            break;
        }
        fitting = status(count, "");
    }
    fitting
}

/// Returns the details with at most `count` violations. The message stands in for `text` if
/// that is empty.
fn with_help(
    description: &Description,
    help: Option<&Help>,
    count: usize,
    text: &str,
) -> ErrorDetails {
    let metadata = description.metadata.iter();
    let mut metadata: HashMap<String, String> = metadata
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    // What names a row, or a field of the request, needs no log. The state of the service does.
    if metadata.is_empty() || description.retry_after.is_some() {
        metadata.insert("request_id".to_owned(), context::request_id().to_string());
    }
    let mut details = ErrorDetails::with_error_info(description.reason, DOMAIN, metadata);
    if description.retry_after.is_some() {
        details.set_retry_info(description.retry_after);
    }
    match help {
        Some(Help::BadRequest(Violations { listed, .. })) => {
            for Violation { field, description } in listed.iter().take(count) {
                details.add_bad_request_violation(field, description);
            }
        }
        Some(Help::Resource { resource, name }) => {
            details.set_resource_info(resource.to_string(), name, "", text);
        }
        Some(Help::Precondition { kind, subject }) => {
            details.add_precondition_failure_violation(*kind, subject, text);
        }
        None => {}
    }
    details
}

/// Cuts a message that is too long, visibly. `max_bytes` is the size of its percent-encoded
/// form, in which all but letters, digits and some punctuation take three bytes.
fn shortened(mut message: String, max_bytes: usize) -> String {
    let mut bytes = 0;
    let end = message.char_indices().find(|(_, character)| {
        let is_plain = character.is_ascii_alphanumeric() || "-_.:;,/=()[]".contains(*character);
        bytes += match is_plain {
            true => 1,
            false => 3 * character.len_utf8(),
        };
        bytes > max_bytes
    });
    if let Some((end, _)) = end {
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error::{AllowedMove, RefusedMove, Resource};

    /// Returns the size of the headers that carry an error, in bytes.
    fn header_bytes(error: Error) -> usize {
        let headers = Status::from(error).into_http::<()>().into_parts().0.headers;
        // HTTP/2 counts 32 bytes for each header beside its name and value.
        let sizes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32);
        sizes.sum()
    }

    fn largest_errors() -> [Error; 3] {
        let violation = |index: usize| Violation {
            field: format!("steps[{index}].step_name"),
            description: format!("must not, got {:?}", "\u{1F600}".repeat(40)),
        };
        let name = "\u{1F600}".repeat(255);
        let largest_move = AllowedMove {
            event: Some("\u{1F600}".repeat(100)),
            state: "\u{1F600}".repeat(50),
        };
        [
            Error::InvalidRequest(Violations {
                listed: (0..20).map(violation).collect(),
                unlisted: 0,
            }),
            Error::NotFound {
                resource: Resource::Node,
                field: "node_id",
                name: name.clone(),
                namespace: None,
            },
            Error::EntityMoveNotAllowed(Box::new(RefusedMove {
                entity_type: "t".repeat(100),
                entity_id: uuid::Uuid::nil().to_string(),
                current: "\u{1F600}".repeat(50),
                event: "\u{1F600}".repeat(100),
                to: "\u{1F600}".repeat(50),
                allowed: vec![largest_move; 1000],
            })),
        ]
    }

    #[test]
    fn the_largest_errors_fit_into_the_headers_that_clients_accept() {
        for error in largest_errors() {
            let reason = error.describe().reason;
            let bytes = header_bytes(error);
            // The rest is for the request id and the headers of a proxy.
            assert!(bytes < 7800, "{reason}: {bytes}");
        }
    }

    #[test]
    fn a_batch_of_the_largest_errors_fits_when_they_are_shortened() {
        for error in largest_errors() {
            let mut status = tonic_types::Status::from(error);
            shorten(&mut status);
            let bytes = prost::Message::encoded_len(&status);
            assert!(bytes < 3900, "{bytes}");
            assert!(!status.details.is_empty());
        }
    }
}
