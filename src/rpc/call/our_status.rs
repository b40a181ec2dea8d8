//! Replaces the statuses that tonic makes itself by those of the contract, which have details.

use tonic::{Code, Status};

use super::audit_log::AuditLog;
use crate::domain::error::{Error, ProtocolError};

/// Returns the status of the contract for one of tonic, or `None` if it is ours already:
/// - OUT_OF_RANGE without details, which tonic uses only for a message over its limit;
/// - INTERNAL without details, which ours always have, for a message that is framed badly;
/// - UNKNOWN, which only a request that was cut off has, see `rpc::limits`;
/// - UNIMPLEMENTED without details, for an unknown method or a compressed message.
pub(super) fn replace(failure: &Status, audit: &AuditLog, max_message: usize) -> Option<Status> {
    let has_details = !failure.details().is_empty();
    match failure.code() {
        Code::OutOfRange if !has_details => Some(Error::MessageTooLarge(max_message).into()),
        Code::Internal if !has_details => Some(Error::from(framing(failure.message())).into()),
        Code::Unimplemented if !has_details => Some(Error::from(unimplemented(audit)).into()),
        Code::Unknown => Some(Status::cancelled("the caller went away")),
        _ => None,
    }
}

/// Returns what is wrong with the frame of a message. tonic says it only by its text.
fn framing(message: &str) -> ProtocolError {
    let fault = match message {
        "Missing request message." => "the body is empty; send a message, which may be empty",
        "Unexpected EOF decoding stream." => {
            "the body ends within a message; send as many bytes as its prefix says"
        }
        _ if message.contains("compressed-flag") => {
            "a message is marked as compressed, and the call has no grpc-encoding; send it uncompressed"
        }
        _ if message.contains("compression flag") => {
            "the first byte of a message must be 0 or 1, its compressed flag"
        }
        _ => "send a prefix of 5 bytes and a message",
    };
    ProtocolError::Framing(fault)
}

fn unimplemented(audit: &AuditLog) -> ProtocolError {
    match audit.is_unknown() {
        true => ProtocolError::UnknownMethod(audit.rpc_name()),
        false => ProtocolError::Encoding,
    }
}
