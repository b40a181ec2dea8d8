//! Maps each [`Error`] to its code, reason, retry delay and details.

use std::{fmt, time::Duration};

use super::{AllowedMove, Error, Resource};
use crate::domain::violation::Violations;

/// The domain of every reason.
pub const DOMAIN: &str = "bridgebook";

/// Retry delay for a full queue or a busy server: some batches later.
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(50);
/// Retry delay for too many connections: some have to close first.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(5);
/// Retry delay for a row that another session locks: the call has waited for seconds already.
const LOCK_RETRY: Duration = Duration::from_secs(1);
/// Retry delay for an outage of the database: about the time of a restart or a failover.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// Retry delay after a shutdown: about the time of a restart. Another replica takes the call at once.
const SHUTDOWN_RETRY: Duration = Duration::from_secs(1);

/// Maximum length of a list of states or moves in an error, in bytes. An error travels in
/// a header, in three places, and clients accept 8 KiB of headers.
const MAX_LIST_BYTES: usize = 400;

/// The codes of google.rpc.Code that the service uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named and numbered by google.rpc.Code")]
pub enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// What the caller of a failed call is told, beside the text of the error.
#[derive(Debug)]
pub struct Description {
    /// The code.
    pub code: Code,
    /// The reason within [`DOMAIN`].
    pub reason: &'static str,
    /// The time after which the same call may well succeed.
    pub retry_after: Option<Duration>,
    /// The metadata of ErrorInfo. A status without any carries the request id.
    pub metadata: Vec<(&'static str, String)>,
    /// The detail that helps the caller, if there is one.
    pub help: Option<Help>,
}

/// A detail of google.rpc that helps the caller.
#[derive(Debug)]
pub enum Help {
    /// BadRequest, with every violation of the request.
    BadRequest(Violations),
    /// ResourceInfo.
    Resource {
        /// The kind of row.
        resource: Resource,
        /// Its name.
        name: String,
    },
    /// PreconditionFailure.
    Precondition {
        /// The type of the violation.
        kind: &'static str,
        /// The row that is in the way, as `kind/id`.
        subject: String,
    },
}

impl Description {
    pub(super) fn new(code: Code, reason: &'static str) -> Self {
        Description {
            code,
            reason,
            retry_after: None,
            metadata: Vec::new(),
            help: None,
        }
    }

    pub(super) fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    fn help(mut self, help: Help) -> Self {
        self.help = Some(help);
        self
    }

    fn resource(self, resource: Resource, name: &str) -> Self {
        let name = name.to_owned();
        self.help(Help::Resource { resource, name })
    }

    fn precondition(self, kind: &'static str, subject: String) -> Self {
        self.help(Help::Precondition { kind, subject })
    }
}

impl Error {
    /// Returns what the caller is told: the one table of codes, reasons, retries, metadata
    /// and details.
    #[must_use]
    pub fn describe(&self) -> Description {
        let new = Description::new;
        match self {
            Error::InvalidRequest(violations) => new(Code::InvalidArgument, "INVALID_FIELD")
                .help(Help::BadRequest(violations.clone())),
            Error::Malformed(_) => new(Code::InvalidArgument, "MALFORMED_MESSAGE"),
            Error::MessageTooLarge(_) => new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            Error::Protocol(fault) => fault.describe(),
            Error::NotFound {
                resource,
                field,
                name,
                ..
            } => new(Code::NotFound, resource.not_found())
                .with(field, name)
                .resource(*resource, name),
            Error::IdConflict {
                resource,
                field,
                name,
            } => new(Code::AlreadyExists, "ID_CONFLICT")
                .with(field, name)
                .resource(*resource, name),
            Error::WorkflowMoveNotAllowed {
                workflow_id,
                current,
                to,
                allowed,
            } => new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED")
                .with("workflow_id", workflow_id)
                .with("current_state", *current)
                .with("to_state", *to)
                .with("allowed_states", allowed.join(","))
                .precondition("STATE", format!("workflow/{workflow_id}")),
            Error::EntityMoveNotAllowed(refused) => {
                new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED")
                    .with("entity_type", &refused.entity_type)
                    .with("entity_id", &refused.entity_id)
                    .with("current_state", &refused.current)
                    .with("transition_event", &refused.event)
                    .with("to_state", &refused.to)
                    .with(
                        "allowed_moves",
                        list(refused.allowed.iter().map(AllowedMove::listed), ","),
                    )
                    .precondition(
                        "STATE",
                        format!("{}/{}", refused.entity_type, refused.entity_id),
                    )
            }
            Error::StateChanged {
                resource,
                id,
                expected,
                current,
            } => new(Code::Aborted, "STATE_CHANGED")
                .with(resource.id_field(), id)
                .with("current_state", current)
                .with("expected_state", expected),
            Error::ConsumptionChanged {
                bridge_id,
                expected,
                current,
            } => new(Code::Aborted, "STATE_CHANGED")
                .with(Resource::Bridge.id_field(), bridge_id)
                .with("consumed_through", current)
                .with("consumed_from", expected),
            Error::ConsumedRowGone { oldest_position } => {
                new(Code::OutOfRange, "RESUME_POINT_GONE").with("oldest_position", oldest_position)
            }
            Error::ConsumptionAhead { bridge_id, through } => {
                new(Code::FailedPrecondition, "POSITION_AHEAD")
                    .with(Resource::Bridge.id_field(), bridge_id)
                    .with("consumed_through", through)
                    .precondition("HORIZON", format!("bridge/{bridge_id}"))
            }
            Error::RevisionChanged {
                resource: Resource::Machine,
                id,
                expected,
                current,
            } => new(Code::Aborted, "VERSION_CHANGED")
                .with(Resource::Machine.id_field(), id)
                .with("current_version", current.to_string())
                .with("expected_version", expected.to_string()),
            Error::RevisionChanged {
                resource,
                id,
                expected,
                current,
            } => new(Code::Aborted, "REVISION_CHANGED")
                .with(resource.id_field(), id)
                .with("current_revision", current.to_string())
                .with("expected_revision", expected.to_string()),
            Error::EntitiesStranded {
                entity_type,
                count,
                states,
            } => new(Code::FailedPrecondition, "ENTITIES_STRANDED")
                .with("entity_type", entity_type)
                .with("stranded_count", count.to_string())
                .with("stranded_states", counts(states))
                .precondition("STRANDED", format!("machine/{entity_type}")),
            Error::NodeOwned(node_id) => new(Code::AlreadyExists, "NODE_OWNED")
                .with("node_id", node_id)
                .resource(Resource::Node, node_id),
            Error::Contended => new(Code::Aborted, "CONTENDED").retry_after(BUSY_RETRY),
            Error::Locked(_) => new(Code::Aborted, "CONTENDED").retry_after(LOCK_RETRY),
            Error::Unauthenticated(fault) => new(Code::Unauthenticated, fault.reason()),
            Error::RoleTooLow {
                role,
                needed,
                namespace,
            } => {
                let description = new(Code::PermissionDenied, "ROLE_TOO_LOW")
                    .with("role", *role)
                    .with("needed_role", *needed);
                match namespace {
                    Some(namespace) => description.with("namespace", namespace),
                    None => description,
                }
            }
            Error::NamespaceDenied(namespace) => {
                new(Code::PermissionDenied, "NAMESPACE_DENIED").with("namespace", namespace)
            }
            Error::LoopbackOnly => new(Code::PermissionDenied, "LOOPBACK_ONLY"),
            Error::Overloaded(limit) => limit.describe(),
            Error::TooManyConnections | Error::ConnectionReclaimed => {
                new(Code::ResourceExhausted, "TOO_MANY_CONNECTIONS")
                    .with("setting", "--max-connections")
                    .retry_after(CONNECTIONS_RETRY)
            }
            Error::QuotaExceeded(exceeded) => exceeded.describe(),
            Error::QueueFull => new(Code::ResourceExhausted, "QUEUE_FULL").retry_after(BUSY_RETRY),
            Error::DatabaseUnavailable(_) => {
                new(Code::Unavailable, "DATABASE_UNAVAILABLE").retry_after(DATABASE_RETRY)
            }
            Error::StatementTimeout(_) => new(Code::DeadlineExceeded, "STATEMENT_TIMEOUT"),
            Error::ShuttingDown => {
                new(Code::Unavailable, "SHUTTING_DOWN").retry_after(SHUTDOWN_RETRY)
            }
            Error::DeadlineExceeded => new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Error::Watch(end) => end.describe(),
            Error::Internal(_) => new(Code::Internal, "INTERNAL"),
        }
    }
}

/// Joins `items`, cut with "…" after [`MAX_LIST_BYTES`].
pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let mut text = String::new();
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        if text.len() > MAX_LIST_BYTES {
            text.push('…');
            break;
        }
        text.push_str(&item.to_string());
    }
    text
}

/// Returns a name for a list in an error, such as `pay=PAID,cancel=CANCELLED`: the characters that
/// have a meaning in the list are percent-encoded.
pub(super) fn listed(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '%' => text.push_str("%25"),
            ',' => text.push_str("%2C"),
            '=' => text.push_str("%3D"),
            '*' => text.push_str("%2A"),
            '…' => text.push_str("%E2%80%A6"),
            _ => text.push(character),
        }
    }
    text
}

/// Formats states with the number of entities in each.
pub(super) fn counts(states: &[(String, i64)]) -> String {
    let states = states.iter();
    list(
        states.map(|(state, count)| format!("{}={count}", listed(state))),
        ",",
    )
}
