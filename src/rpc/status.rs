//! Converts an [`Error`] into a gRPC status with details.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::context;
use crate::domain::{
    error::{DOMAIN, Description, Error, Help},
    violation::{Violation, Violations},
};

/// Maximum length of a message, in characters. It travels in a header, and clients accept
/// 8 KiB of headers.
const MAX_MESSAGE_CHARS: usize = 1000;

/// The header that the retry policies of gRPC libraries read; they do not read RetryInfo.
const PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";

/// Carries the cause as the source of the status, which tonic keeps among the extensions
/// of the response: the call log finds it there.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let description = error.describe();
        let details = details(&error, &description);
        let message = shortened(error.to_string());
        let code = tonic::Code::from_i32(description.code as i32);
        let mut status = Status::with_error_details(code, message, details);
        if let Some(delay) = description.retry_after {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(PUSHBACK_HEADER, millis.into());
        }
        if let Some(cause) = error.cause() {
            status.set_source(cause);
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

fn details(error: &Error, description: &Description) -> ErrorDetails {
    let metadata = description.metadata.iter();
    let mut metadata: HashMap<String, String> = metadata
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    if metadata.is_empty() {
        metadata.insert("request_id".to_owned(), context::request_id().to_string());
    }
    let mut details = ErrorDetails::with_error_info(description.reason, DOMAIN, metadata);
    if description.retry_after.is_some() {
        details.set_retry_info(description.retry_after);
    }
    match &description.help {
        Some(Help::BadRequest(Violations(violations))) => {
            for Violation { field, description } in violations {
                details.add_bad_request_violation(field, description);
            }
        }
        Some(Help::Resource { resource, name }) => {
            details.set_resource_info(resource.to_string(), name, "", error.to_string());
        }
        Some(Help::Precondition { kind, subject }) => {
            details.add_precondition_failure_violation(*kind, subject, error.to_string());
        }
        None => {}
    }
    details
}

/// Cuts a message that is too long, visibly.
fn shortened(message: String) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}
