//! The errors of a call. [`Error::describe`] is the one table from an error to what its
//! caller is told.

#![deny(clippy::wildcard_enum_match_arm)]

mod credential;
mod describe;
mod overload;
mod protocol;
mod quota_exceeded;
mod refused_move;
mod resource;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    credential::CredentialError,
    describe::{Code, DOMAIN, Description, Help},
    overload::Overload,
    protocol::ProtocolError,
    quota_exceeded::QuotaExceeded,
    refused_move::{AllowedMove, RefusedMove},
    resource::Resource,
    watch::WatchEnd,
};
use super::{namespace::Namespace, violation::Violations};
use crate::util::{counted::counted, error_chain::error_chain};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An internal cause, which only the log shows.
pub type Cause = dyn std::error::Error + Send + Sync;

/// Why a call failed. The text is the caller's: it says what is wrong, with which value,
/// and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Fields of the request are invalid.
    #[error("{0}")]
    InvalidRequest(Violations),
    /// The message is larger than the server accepts, in bytes.
    #[error(
        "the message is too large; the server accepts at most {0} bytes, so send smaller batches or documents"
    )]
    MessageTooLarge(usize),
    /// The bytes do not decode as the request's message.
    #[error(
        "the bytes of the request are not a valid protobuf message of this RPC; compare the client's \
         contract with the server's"
    )]
    Malformed(#[source] prost::DecodeError),
    /// The call does not follow the protocol.
    #[error("{0}")]
    Protocol(ProtocolError),
    /// There is no such row in the caller's namespace.
    #[error("{} not found{}", resource.named(field, name), scope(namespace.as_ref()))]
    NotFound {
        /// The kind of row.
        resource: Resource,
        /// The field that names it.
        field: &'static str,
        /// The value of the field.
        name: String,
        /// The namespace that was searched; `None` for nodes and tokens, which belong to no
        /// tenant alone.
        namespace: Option<Namespace>,
    },
    /// The id belongs to a row with other content, in any namespace.
    #[error(
        "{field} {name} is already used by a {resource} with different content{}; {}",
        resource.conflict_scope(),
        resource.conflict_remedy()
    )]
    IdConflict {
        /// The kind of row.
        resource: Resource,
        /// The field that names it.
        field: &'static str,
        /// The value of the field.
        name: String,
    },
    /// The lifecycle of workflows does not allow the move.
    #[error(
        "workflow {workflow_id} cannot move from {current} to {to}; {}",
        next_states(current, allowed)
    )]
    WorkflowMoveNotAllowed {
        /// The workflow.
        workflow_id: String,
        /// Its current state.
        current: &'static str,
        /// The requested state.
        to: &'static str,
        /// The states that it may move to.
        allowed: Vec<&'static str>,
    },
    /// The machine does not have the move.
    #[error("{0}")]
    EntityMoveNotAllowed(Box<RefusedMove>),
    /// The caller expected another state.
    #[error(
        "{resource} {id} is in {}, expected {}; read it again and retry with the current value",
        state_or_none(current),
        state_or_none(expected)
    )]
    StateChanged {
        /// The kind of row.
        resource: Resource,
        /// Its id.
        id: String,
        /// The state that the caller expected; empty for none.
        expected: String,
        /// The current state; empty for none.
        current: String,
    },
    /// The bridge has not consumed through the position that the caller expected.
    #[error(
        "bridge {bridge_id} has consumed {}, not {}; nothing was changed, drop the batch, and watch with \
         after_bridge again",
        through_or_nothing(current),
        through_or_nothing(expected)
    )]
    ConsumptionChanged {
        /// The bridge.
        bridge_id: String,
        /// The position that the caller expected; empty for none.
        expected: String,
        /// The current position; empty for none.
        current: String,
    },
    /// The journal does not have the row through which a bridge is to consume.
    #[error(
        "the journal has no row at consumed_through: the database was restored or failed over without \
         it; nothing was changed, drop the batch, and watch with after_bridge again"
    )]
    ConsumedRowGone {
        /// The position after which the rows are complete.
        oldest_position: String,
    },
    /// Rows may still appear before the one through which a bridge is to consume.
    #[error(
        "no watch can have read as far as consumed_through {through} yet, because rows before it may still \
         be about to be committed; nothing was changed, consume what a watch sends that began with \
         after_bridge"
    )]
    ConsumptionAhead {
        /// The bridge.
        bridge_id: String,
        /// The position of the row.
        through: String,
    },
    /// The caller expected another revision of a row, or version of a machine.
    #[error(
        "{resource} {id} is at {} {current}, expected {expected}; read it again and retry with the current value",
        resource.counter()
    )]
    RevisionChanged {
        /// The kind of row.
        resource: Resource,
        /// Its id.
        id: String,
        /// The number that the caller expected; 0 for none.
        expected: i64,
        /// The current number; 0 for none.
        current: i64,
    },
    /// Entities are in states that the new machine lacks.
    #[error(
        "the machine lacks the states of {} of type {entity_type}: {}; \
         move them first, keep the states, or set allow_stranded",
        counted(*count, "entity", "entities"),
        describe::counts(states)
    )]
    EntitiesStranded {
        /// The type of the entities.
        entity_type: String,
        /// The number of entities.
        count: i64,
        /// The states, with the number of entities in each.
        states: Vec<(String, i64)>,
    },
    /// The node belongs to another namespace.
    #[error("node_id {0} is registered by another namespace; choose another node_id")]
    NodeOwned(String),
    /// Other calls changed the row at every attempt to decide this one.
    #[error(
        "concurrent calls keep changing the row; nothing was written, retry in {}",
        wait(self)
    )]
    Contended,
    /// Another session of the database holds a lock on the row, or on its table.
    #[error(
        "another session of the database holds a lock on the row or its table; nothing was \
         written, retry in {}",
        wait(self)
    )]
    Locked(#[source] Arc<Cause>),
    /// The caller has no valid credential.
    #[error("{0}")]
    Unauthenticated(CredentialError),
    /// The role of the caller's token is too low.
    #[error("the token has the role {role}; this call requires {needed}")]
    RoleTooLow {
        /// The token's role.
        role: &'static str,
        /// The role that the call requires.
        needed: &'static str,
        /// The namespace that the call names, if any.
        namespace: Option<String>,
    },
    /// The caller's token does not cover the namespace.
    #[error("the token does not cover namespace {0}; use a token that covers it")]
    NamespaceDenied(String),
    /// The call does not come over the loopback interface, or comes through a proxy.
    #[error(
        "without tokens, AdminService accepts only calls over the loopback interface that no \
         proxy forwarded; enable tokens to call it from elsewhere"
    )]
    LoopbackOnly,
    /// The server has reached its limit of calls in progress, or of their bytes.
    #[error("{}; nothing was done, retry in {}", .0, wait(self))]
    Overloaded(Overload),
    /// The server has reached its limit of connections.
    #[error(
        "too many connections; nothing was done, use fewer connections, and retry in {}",
        wait(self)
    )]
    TooManyConnections,
    /// The connection of an incomplete request is closed, because the token has more connections than
    /// its share, and another token needs one.
    #[error(
        "the token has more than its share of the connections, and another token needs this one; \
         nothing was done, use fewer connections, and retry in {}",
        wait(self)
    )]
    ConnectionReclaimed,
    /// The tenant or the token has reached a limit of its quota.
    #[error("{}; nothing was done, retry in {}", .0, wait(self))]
    QuotaExceeded(Box<QuotaExceeded>),
    /// The queue of the operation is full.
    #[error(
        "the server is busy: its queues or database connections are in use; nothing was done, retry in {}",
        wait(self)
    )]
    QueueFull,
    /// The database cannot be reached or written to.
    #[error("the database is unavailable; retry in {}", wait(self))]
    DatabaseUnavailable(#[source] Arc<Cause>),
    /// PostgreSQL works, and ended a statement that took too long, or that an operator cancelled.
    #[error(
        "the database took too long for this call alone, or its operator cancelled it; nothing was \
         written; ask for less, or report the request id to the operator"
    )]
    StatementTimeout(#[source] Arc<Cause>),
    /// A shutdown of the server has ended the call.
    #[error(
        "the server is shutting down and has ended the call; a write may have been stored, retry it \
         with the same ids in {}",
        wait(self)
    )]
    ShuttingDown,
    /// The caller's deadline, or the server's maximum call duration, has passed.
    #[error("the deadline passed; a write may have been stored, retry it with the same ids")]
    DeadlineExceeded,
    /// A stream of the journal ends, or cannot begin.
    #[error("{0}")]
    Watch(WatchEnd),
    /// A fault of the service.
    #[error("internal error; report the request id to the operator")]
    Internal(#[source] Arc<Cause>),
}

impl Error {
    /// Returns the causes of the error outside of a call, as in a background task or in a command. There
    /// is no request id to report, so the causes stand for an internal error.
    #[must_use]
    pub fn causes(&self) -> String {
        if let Error::Internal(cause) | Error::StatementTimeout(cause) = self {
            return error_chain(&**cause);
        }
        error_chain(self)
    }

    /// Makes the error of one invalid field.
    #[must_use]
    pub fn invalid_field(field: &str, description: impl fmt::Display) -> Self {
        Error::InvalidRequest(Violations::one(field, description))
    }

    /// Returns the error of an item as that of the request that has the item in `field`.
    #[must_use]
    pub fn within(self, field: &str) -> Self {
        if let Error::InvalidRequest(violations) = self {
            return Error::InvalidRequest(violations.within(field));
        }
        self
    }

    /// Returns the time after which the same call may well succeed; `None` if it will not
    /// by itself.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.describe().retry_after
    }

    /// Returns the cause that the caller is not told, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<Arc<Cause>> {
        if let Error::Contended = self {
            let lost = std::io::Error::other("other calls changed the row at every attempt");
            return Some(Arc::new(lost));
        }
        if let Error::Internal(cause)
        | Error::DatabaseUnavailable(cause)
        | Error::Locked(cause)
        | Error::StatementTimeout(cause) = self
        {
            return Some(Arc::clone(cause));
        }
        None
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Error::InvalidRequest(violations)
    }
}

/// Makes the error of a fault of the service.
pub(crate) fn internal(what: &'static str) -> Error {
    Error::Internal(Arc::new(std::io::Error::other(what)))
}

fn scope(namespace: Option<&Namespace>) -> String {
    namespace.map_or_else(String::new, |it| format!(" in namespace {it}"))
}

fn next_states(current: &str, allowed: &[&str]) -> String {
    match allowed {
        [] => format!("{current} is terminal"),
        _ => format!("from {current} it may move to {}", allowed.join(", ")),
    }
}

fn state_or_none(state: &str) -> &str {
    if state.is_empty() { "no state" } else { state }
}

fn through_or_nothing(position: &str) -> String {
    match position {
        "" => "nothing".to_owned(),
        position => format!("through {position}"),
    }
}

fn wait(error: &Error) -> String {
    // Rounded up: a caller that comes back too early is rejected again.
    let millis = error
        .retry_after()
        .unwrap_or_default()
        .as_micros()
        .div_ceil(1000);
    match millis % 1000 {
        0 => format!("{} s", millis / 1000),
        _ => format!("{millis} ms"),
    }
}
