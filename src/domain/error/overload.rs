//! The limit that an overloaded server has reached.

use std::fmt;

use super::{Code, Description, describe::BUSY_RETRY};

/// A limit of the server, or of the caller's share of it, which rejects a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// The number of calls in progress of all callers.
    CallsInProgress,
    /// The number of calls in progress of this caller, which has its share of them.
    CallsOfCaller,
    /// The bytes of requests: of all calls, or of the caller.
    RequestMemory,
    /// The bytes of responses, in which that of a read has no room.
    ResponseMemory,
    /// The responses that the caller has not read, because of which it must not write.
    UnreadResponses,
    /// The health or reflection calls in progress: of all clients, or of the caller's address.
    InfrastructureCalls,
    /// The health watches and reflection streams of the caller's connection.
    ConnectionStreams,
    /// The rate of health or reflection calls of the caller's address.
    InfrastructureRate,
    /// The streams of the journal: of all callers, or of the caller.
    Watches,
}

impl Overload {
    /// Returns the name of the limit in the metadata.
    fn as_str(self) -> &'static str {
        match self {
            Overload::CallsInProgress => "calls_in_progress",
            Overload::CallsOfCaller => "calls_in_progress_of_caller",
            Overload::RequestMemory => "request_memory",
            Overload::ResponseMemory => "response_memory",
            Overload::UnreadResponses => "unread_responses",
            Overload::InfrastructureCalls => "infrastructure_calls",
            Overload::ConnectionStreams => "streams_per_connection",
            Overload::InfrastructureRate => "infrastructure_calls_per_second",
            Overload::Watches => "watches",
        }
    }

    /// Returns the setting of the limit; `None` if it is fixed.
    fn setting(self) -> Option<&'static str> {
        match self {
            Overload::CallsInProgress | Overload::CallsOfCaller => Some("--max-requests"),
            Overload::RequestMemory | Overload::ResponseMemory | Overload::UnreadResponses => {
                Some("--max-request-memory")
            }
            Overload::Watches => Some("--max-watches"),
            Overload::InfrastructureCalls
            | Overload::ConnectionStreams
            | Overload::InfrastructureRate => None,
        }
    }

    pub(super) fn describe(self) -> Description {
        let description = Description::new(Code::ResourceExhausted, "OVERLOADED")
            .with("limit", self.as_str())
            .retry_after(BUSY_RETRY);
        match self.setting() {
            Some(setting) => description.with("setting", setting),
            None => description,
        }
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overload::CallsInProgress => "too many calls of all callers are in progress",
            Overload::CallsOfCaller => {
                "too many calls of this caller are in progress; the rest is for others"
            }
            Overload::RequestMemory => "the requests in progress use too much memory",
            Overload::ResponseMemory => {
                "the responses that clients have not read leave no memory for this one"
            }
            Overload::UnreadResponses => {
                "too many responses of this caller are not read; read them before the next write"
            }
            Overload::InfrastructureCalls => {
                "too many health or reflection calls are in progress, or too many from this address"
            }
            Overload::ConnectionStreams => {
                "too many health watches or reflection streams are open on this connection"
            }
            Overload::InfrastructureRate => {
                "this address makes too many health or reflection calls per second"
            }
            Overload::Watches => {
                "too many streams of the journal are open, or too many of this caller"
            }
        })?;
        match self.setting() {
            Some(setting) => write!(f, " ({setting})"),
            None => Ok(()),
        }
    }
}
