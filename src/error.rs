//! Everything that a call can fail with, and the one table from there to a gRPC status.

#![deny(clippy::wildcard_enum_match_arm)]

mod status;

use std::{fmt, sync::Arc, time::Duration};

use tonic::Code;

use crate::{db::DbError, request, validate::Violations};

/// The domain of every reason.
pub(crate) const DOMAIN: &str = "bridgebook";

/// When to come back if a queue is full: some batches later.
const QUEUE_RETRY: Duration = Duration::from_millis(50);
/// When to come back if there are too many connections: some have to be closed first.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(5);
/// When to come back if the database is away: about the time of a restart or a failover.
const DATABASE_RETRY: Duration = Duration::from_secs(1);

/// A kind of row that a call can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A row of workflow_executions.
    Workflow,
    /// A row of workflow_steps.
    Step,
    /// A row of metadata_stamps.
    Stamp,
    /// A row of fsm_transitions.
    Transition,
    /// A machine (fsm_machines).
    Machine,
    /// A row of fsm_entities.
    Entity,
    /// A row of bridge_states.
    Bridge,
    /// A row of bridge_batches.
    Batch,
    /// A row of node_registrations.
    Node,
    /// A row of api_tokens.
    Token,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Workflow => "workflow",
            Resource::Step => "step",
            Resource::Stamp => "stamp",
            Resource::Transition => "transition",
            Resource::Machine => "machine",
            Resource::Entity => "entity",
            Resource::Bridge => "bridge",
            Resource::Batch => "batch",
            Resource::Node => "node",
            Resource::Token => "token",
        })
    }
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Fields are not as they must be.
    #[error("{0}")]
    InvalidRequest(Violations),
    /// The message is longer than the server takes.
    #[error("the message is too long; the server takes {0} bytes")]
    MessageTooLarge(usize),
    /// The bytes are no valid message.
    #[error("the bytes of the request are no valid message")]
    Malformed(#[source] Option<prost::DecodeError>),
    /// There is no such row in the caller's namespace.
    #[error("there is no {resource} with {field} {name}{}", for_whom(*resource))]
    NotFound {
        /// What was looked for.
        resource: Resource,
        /// The field that named it.
        field: &'static str,
        /// Its value.
        name: String,
    },
    /// The id is taken by something with other content, whoever's it is.
    #[error("{field} {name} is taken by a {resource} with other content")]
    IdConflict {
        /// What was to be made.
        resource: Resource,
        /// The field that named it.
        field: &'static str,
        /// Its value.
        name: String,
    },
    /// The lifecycle does not allow the move.
    #[error(
        "a workflow can not go from {current} to {to}; {}",
        ways_on(current, allowed)
    )]
    MoveNotAllowed {
        /// The workflow.
        workflow_id: String,
        /// Where it is.
        current: &'static str,
        /// Where it was to go.
        to: &'static str,
        /// Where it may go.
        allowed: Vec<&'static str>,
    },
    /// The machine has no such move.
    #[error("{0}")]
    NoSuchMove(Box<RefusedMove>),
    /// The caller expected another state.
    #[error(
        "the {resource} is {}, not {}; read it again and decide again",
        state_or_nothing(current),
        state_or_nothing(expected)
    )]
    StateChanged {
        /// What kind of row it is.
        resource: Resource,
        /// Which one.
        id: String,
        /// Where the caller expected it to be.
        expected: String,
        /// Where it is.
        current: String,
    },
    /// The caller expected another revision of a row, or version of a machine.
    #[error("the {resource} is at {current}, not at {expected}; read it again and decide again")]
    RevisionChanged {
        /// What kind of row it is.
        resource: Resource,
        /// Which one.
        id: String,
        /// What the caller expected; 0 for none.
        expected: i64,
        /// What it is; 0 for none.
        current: i64,
    },
    /// Entities are in states that a machine would no longer have.
    #[error(
        "{count} entities of type {entity_type} are in states that the machine does not have: {}; \
         move them first, keep the states, or allow it with allow_stranded",
        counted(states)
    )]
    EntitiesStranded {
        /// What kind of entities they are.
        entity_type: String,
        /// How many.
        count: i64,
        /// Where, and how many there.
        states: Vec<(String, i64)>,
    },
    /// The node belongs to another namespace.
    #[error("node_id {0} is registered by another namespace; choose another name")]
    NodeOwned(String),
    /// Others changed the row again and again while this call was being decided.
    #[error("others keep changing it; nothing was done, send it again")]
    Overtaken,
    /// The caller does not show a credential that is good.
    #[error("{0}")]
    Unauthenticated(CredentialFault),
    /// The caller's role may not do this.
    #[error("the token's role {role} is not enough, this needs {needed}")]
    RoleTooLow {
        /// The role that the token has.
        role: &'static str,
        /// The role that it would take.
        needed: &'static str,
        /// The namespace that the call names, if it names one.
        namespace: Option<String>,
    },
    /// The caller's token does not hold for the namespace.
    #[error("the token does not hold for the namespace {0}")]
    NamespaceDenied(String),
    /// The caller does not come over loopback, or through a proxy.
    #[error(
        "without tokens, AdminService answers only callers over the loopback interface, without a proxy"
    )]
    LoopbackOnly,
    /// More calls are under way than the server takes on.
    #[error("too many calls are under way; nothing was done")]
    Overloaded,
    /// There are more connections than the server takes on.
    #[error("there are too many connections; nothing was done")]
    TooManyConnections,
    /// The token makes more calls than it may; the next one is good after this time.
    #[error("the token makes too many calls; nothing was done")]
    RateLimited(Duration),
    /// More calls are waiting than the server will hold.
    #[error("too many calls are waiting; nothing was done")]
    QueueFull,
    /// The database can't be reached.
    #[error("the database is away")]
    DatabaseUnavailable(#[source] Arc<DbError>),
    /// The caller's deadline, or the server's own, passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// Our own fault.
    #[error("internal error")]
    Internal(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// What is wrong with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// There is none.
    #[error(
        "a credential is missing; send it as the header authorization: Bearer bb_<id>_<secret>"
    )]
    Missing,
    /// It is not written as credentials are.
    #[error("the header authorization must be Bearer bb_<id>_<secret>, and there once")]
    Malformed,
    /// It is nobody's: there is no such token, or the secret is another.
    #[error("the credential is not known")]
    Unknown,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// The certificate is good, but stands for no token.
    #[error(
        "the subject of the client certificate stands for no token; send a credential, or have it mapped"
    )]
    CertificateUnknown,
}

impl CredentialFault {
    fn reason(self) -> &'static str {
        match self {
            CredentialFault::Missing => "CREDENTIAL_MISSING",
            CredentialFault::Malformed => "CREDENTIAL_MALFORMED",
            CredentialFault::Unknown => "CREDENTIAL_UNKNOWN",
            CredentialFault::Expired => "CREDENTIAL_EXPIRED",
            CredentialFault::Revoked => "CREDENTIAL_REVOKED",
            CredentialFault::CertificateUnknown => "CERTIFICATE_UNKNOWN",
        }
    }
}

/// A move that a machine does not have.
#[derive(Debug, Clone, Default)]
pub struct RefusedMove {
    /// What kind of entity it is.
    pub entity_type: String,
    /// The entity.
    pub entity_id: String,
    /// Where it is; empty if it is nowhere yet.
    pub current: String,
    /// The event; empty if that was left to the machine.
    pub event: String,
    /// Where it was to go; empty if that was left to the machine.
    pub to: String,
    /// The moves that there are, as `event=state`.
    pub allowed: Vec<String>,
}

impl fmt::Display for RefusedMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} can not go", self.entity_type)?;
        write!(f, " from {}", state_or_nothing(&self.current))?;
        if !self.to.is_empty() {
            write!(f, " to {}", self.to)?;
        }
        if !self.event.is_empty() {
            write!(f, " by {}", self.event)?;
        }
        match self.allowed.as_slice() {
            [begin] if self.current.is_empty() => {
                write!(f, "; it has to begin in {}", begin.trim_start_matches("*="))
            }
            [] => f.write_str("; no move is allowed from there"),
            allowed => write!(f, "; allowed from there is {}", listed(allowed, ", ")),
        }
    }
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Error::InvalidRequest(violations)
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        if matches!(error, DbError::Busy) {
            Error::QueueFull
        } else if error.is_unavailable() {
            Error::DatabaseUnavailable(Arc::new(error))
        } else {
            Error::Internal(Arc::new(error))
        }
    }
}

fn for_whom(resource: Resource) -> &'static str {
    match resource {
        // Tokens are the operator's.
        Resource::Token => "",
        Resource::Workflow
        | Resource::Step
        | Resource::Stamp
        | Resource::Transition
        | Resource::Machine
        | Resource::Entity
        | Resource::Bridge
        | Resource::Batch
        | Resource::Node => " for this namespace",
    }
}

fn ways_on(current: &str, allowed: &[&str]) -> String {
    if allowed.is_empty() {
        format!("{current} is final")
    } else {
        format!("from {current} it can go to {}", allowed.join(", "))
    }
}

fn state_or_nothing(state: &str) -> &str {
    if state.is_empty() { "nothing" } else { state }
}

/// The longest list of states or moves in an error, in bytes: it travels in a
/// header, of which clients take 8 KiB, in three places.
const MAX_LIST: usize = 400;

/// Joins what there is, and ends with "…" where that is too much.
fn listed<T: fmt::Display>(all: impl IntoIterator<Item = T>, separator: &str) -> String {
    let mut list = String::new();
    for (index, item) in all.into_iter().enumerate() {
        if index > 0 {
            list.push_str(separator);
        }
        if list.len() > MAX_LIST {
            list.push('…');
            break;
        }
        list.push_str(&item.to_string());
    }
    list
}

fn counted(states: &[(String, i64)]) -> String {
    let states = states
        .iter()
        .map(|(state, count)| format!("{state}={count}"));
    listed(states, ",")
}

impl Error {
    /// One field is not as it must be.
    #[must_use]
    pub fn invalid_field(field: &str, description: impl fmt::Display) -> Self {
        Error::InvalidRequest(Violations::one(field, description))
    }

    /// The table: the code, and the reason within the domain.
    fn classify(&self) -> (Code, &'static str) {
        match self {
            Error::InvalidRequest(_) => (Code::InvalidArgument, "INVALID_FIELD"),
            Error::Malformed(_) => (Code::InvalidArgument, "MALFORMED_MESSAGE"),
            Error::MessageTooLarge(_) => (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            Error::NotFound { resource, .. } => (Code::NotFound, not_found(*resource)),
            Error::IdConflict { .. } => (Code::AlreadyExists, "ID_CONFLICT"),
            Error::MoveNotAllowed { .. } => (Code::FailedPrecondition, "MOVE_NOT_ALLOWED"),
            Error::NoSuchMove(_) => (Code::FailedPrecondition, "MOVE_NOT_ALLOWED"),
            Error::StateChanged { .. } => (Code::Aborted, "STATE_CHANGED"),
            Error::RevisionChanged {
                resource: Resource::Machine,
                ..
            } => (Code::Aborted, "VERSION_CHANGED"),
            Error::RevisionChanged { .. } => (Code::Aborted, "REVISION_CHANGED"),
            Error::EntitiesStranded { .. } => (Code::FailedPrecondition, "ENTITIES_STRANDED"),
            Error::NodeOwned(_) => (Code::AlreadyExists, "NODE_OWNED"),
            Error::Overtaken => (Code::Aborted, "CONTENDED"),
            Error::Unauthenticated(fault) => (Code::Unauthenticated, fault.reason()),
            Error::RoleTooLow { .. } => (Code::PermissionDenied, "ROLE_TOO_LOW"),
            Error::NamespaceDenied(_) => (Code::PermissionDenied, "NAMESPACE_DENIED"),
            Error::LoopbackOnly => (Code::PermissionDenied, "LOOPBACK_ONLY"),
            Error::Overloaded => (Code::ResourceExhausted, "OVERLOADED"),
            Error::TooManyConnections => (Code::ResourceExhausted, "TOO_MANY_CONNECTIONS"),
            Error::RateLimited(_) => (Code::ResourceExhausted, "RATE_LIMITED"),
            Error::QueueFull => (Code::ResourceExhausted, "QUEUE_FULL"),
            Error::DatabaseUnavailable(_) => (Code::Unavailable, "DATABASE_UNAVAILABLE"),
            Error::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Error::Internal(_) => (Code::Internal, "INTERNAL"),
        }
    }

    /// After which time the same call may well succeed.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::QueueFull | Error::Overloaded => Some(QUEUE_RETRY),
            Error::TooManyConnections => Some(CONNECTIONS_RETRY),
            Error::RateLimited(wait) => Some(*wait),
            Error::DatabaseUnavailable(_) => Some(DATABASE_RETRY),
            Error::InvalidRequest(_)
            | Error::Malformed(_)
            | Error::MessageTooLarge(_)
            | Error::NotFound { .. }
            | Error::IdConflict { .. }
            | Error::MoveNotAllowed { .. }
            | Error::NoSuchMove(_)
            | Error::StateChanged { .. }
            | Error::RevisionChanged { .. }
            | Error::EntitiesStranded { .. }
            | Error::NodeOwned(_)
            | Error::Overtaken
            | Error::Unauthenticated(_)
            | Error::RoleTooLow { .. }
            | Error::NamespaceDenied(_)
            | Error::LoopbackOnly
            | Error::DeadlineExceeded
            | Error::Internal(_) => None,
        }
    }

    /// Notes for the log what the caller is not told.
    fn note_cause(&self) {
        match self {
            Error::Internal(cause) => request::fails_because(chain(cause)),
            Error::DatabaseUnavailable(cause) => request::fails_because(chain(cause)),
            Error::InvalidRequest(_)
            | Error::Malformed(_)
            | Error::MessageTooLarge(_)
            | Error::NotFound { .. }
            | Error::IdConflict { .. }
            | Error::MoveNotAllowed { .. }
            | Error::NoSuchMove(_)
            | Error::StateChanged { .. }
            | Error::RevisionChanged { .. }
            | Error::EntitiesStranded { .. }
            | Error::NodeOwned(_)
            | Error::Overtaken
            | Error::Unauthenticated(_)
            | Error::RoleTooLow { .. }
            | Error::NamespaceDenied(_)
            | Error::LoopbackOnly
            | Error::Overloaded
            | Error::TooManyConnections
            | Error::RateLimited(_)
            | Error::QueueFull
            | Error::DeadlineExceeded => {}
        }
    }
}

fn not_found(resource: Resource) -> &'static str {
    match resource {
        Resource::Workflow => "WORKFLOW_NOT_FOUND",
        Resource::Step => "STEP_NOT_FOUND",
        Resource::Stamp => "STAMP_NOT_FOUND",
        Resource::Transition => "TRANSITION_NOT_FOUND",
        Resource::Machine => "MACHINE_NOT_FOUND",
        Resource::Entity => "ENTITY_NOT_FOUND",
        Resource::Bridge => "BRIDGE_NOT_FOUND",
        Resource::Batch => "BATCH_NOT_FOUND",
        Resource::Node => "NODE_NOT_FOUND",
        Resource::Token => "TOKEN_NOT_FOUND",
    }
}

/// Something is not as it must be within the service.
pub(crate) fn internal(what: &'static str) -> Error {
    Error::Internal(Arc::new(std::io::Error::other(what)))
}

/// An error and all its sources.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
