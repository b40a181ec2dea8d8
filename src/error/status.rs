//! From an [`Error`] to a gRPC status with its details.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::{DOMAIN, Error, Resource, counted, listed};
use crate::{
    request,
    validate::{Violation, Violations},
};

/// The longest message, in characters: it travels in a header, of which clients
/// take 8 KiB.
const MAX_MESSAGE: usize = 1000;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.note_cause();
        let (code, reason) = error.classify();
        let metadata = error.metadata().into_iter();
        let metadata: HashMap<_, _> = metadata.map(|(k, v)| (k.to_owned(), v)).collect();
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        error.add_help(&mut details);
        let message: String = error.to_string().chars().take(MAX_MESSAGE).collect();
        let mut status = Status::with_error_details(code, message, details);
        if let Some(delay) = error.retry_after() {
            // What the retry policies of gRPC libraries go by; they do not read RetryInfo.
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            status
                .metadata_mut()
                .insert("grpc-retry-pushback-ms", millis.into());
        }
        status
    }
}

/// The same as a message, for one item of a batch.
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

impl Error {
    /// What the ErrorInfo says beside the reason.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Error::NotFound { field, name, .. } | Error::IdConflict { field, name, .. } => {
                vec![(*field, name.clone())]
            }
            Error::MoveNotAllowed {
                workflow_id,
                current,
                to,
                allowed,
            } => vec![
                ("workflow_id", workflow_id.clone()),
                ("current_state", (*current).to_owned()),
                ("to_state", (*to).to_owned()),
                ("allowed_states", allowed.join(",")),
            ],
            Error::NoSuchMove(refused) => vec![
                ("entity_type", refused.entity_type.clone()),
                ("entity_id", refused.entity_id.clone()),
                ("current_state", refused.current.clone()),
                ("transition_event", refused.event.clone()),
                ("to_state", refused.to.clone()),
                ("allowed_moves", listed(&refused.allowed, ",")),
            ],
            Error::StateChanged {
                resource,
                id,
                expected,
                current,
            } => vec![
                (id_field(*resource), id.clone()),
                ("current_state", current.clone()),
                ("expected_state", expected.clone()),
            ],
            Error::RevisionChanged {
                resource,
                id,
                expected,
                current,
            } => {
                let (current_name, expected_name) = if *resource == Resource::Machine {
                    ("current_version", "expected_version")
                } else {
                    ("current_revision", "expected_revision")
                };
                vec![
                    (id_field(*resource), id.clone()),
                    (current_name, current.to_string()),
                    (expected_name, expected.to_string()),
                ]
            }
            Error::EntitiesStranded {
                entity_type,
                count,
                states,
            } => vec![
                ("entity_type", entity_type.clone()),
                ("stranded_count", count.to_string()),
                ("stranded_states", counted(states)),
            ],
            Error::NodeOwned(node_id) => vec![("node_id", node_id.clone())],
            Error::RoleTooLow {
                role,
                needed,
                namespace,
            } => {
                let namespace = namespace.iter().map(|name| ("namespace", name.clone()));
                let roles = [("role", *role), ("needed_role", *needed)];
                let roles = roles.map(|(key, role)| (key, role.to_owned()));
                roles.into_iter().chain(namespace).collect()
            }
            Error::NamespaceDenied(namespace) => vec![("namespace", namespace.clone())],
            Error::InvalidRequest(_)
            | Error::Malformed(_)
            | Error::MessageTooLarge(_)
            | Error::Overtaken
            | Error::Unauthenticated(_)
            | Error::LoopbackOnly
            | Error::Overloaded
            | Error::TooManyConnections
            | Error::RateLimited(_)
            | Error::QueueFull
            | Error::DatabaseUnavailable(_)
            | Error::DeadlineExceeded
            | Error::Internal(_) => vec![("request_id", request::id().to_string())],
        }
    }

    /// What else helps the caller.
    fn add_help(&self, details: &mut ErrorDetails) {
        match self {
            Error::InvalidRequest(Violations(violations)) => {
                for Violation { field, description } in violations {
                    details.add_bad_request_violation(field, description);
                }
            }
            Error::NotFound { resource, name, .. } | Error::IdConflict { resource, name, .. } => {
                details.set_resource_info(resource.to_string(), name, "", self.to_string());
            }
            Error::MoveNotAllowed { workflow_id, .. } => {
                details.add_precondition_failure_violation(
                    "STATE",
                    format!("workflow/{workflow_id}"),
                    self.to_string(),
                );
            }
            Error::NoSuchMove(refused) => {
                details.add_precondition_failure_violation(
                    "STATE",
                    format!("{}/{}", refused.entity_type, refused.entity_id),
                    self.to_string(),
                );
            }
            Error::EntitiesStranded { entity_type, .. } => {
                details.add_precondition_failure_violation(
                    "STRANDED",
                    format!("machine/{entity_type}"),
                    self.to_string(),
                );
            }
            Error::NodeOwned(node_id) => {
                details.set_resource_info("node", node_id, "", self.to_string());
            }
            Error::QueueFull
            | Error::Overloaded
            | Error::TooManyConnections
            | Error::RateLimited(_)
            | Error::DatabaseUnavailable(_) => {
                details.set_retry_info(self.retry_after());
            }
            Error::Malformed(_)
            | Error::MessageTooLarge(_)
            | Error::StateChanged { .. }
            | Error::RevisionChanged { .. }
            | Error::Overtaken
            | Error::Unauthenticated(_)
            | Error::RoleTooLow { .. }
            | Error::NamespaceDenied(_)
            | Error::LoopbackOnly
            | Error::DeadlineExceeded
            | Error::Internal(_) => {}
        }
    }
}

/// The field that names a row of a kind.
fn id_field(resource: Resource) -> &'static str {
    match resource {
        Resource::Workflow => "workflow_id",
        Resource::Step => "step_id",
        Resource::Stamp => "stamp_id",
        Resource::Transition => "transition_id",
        Resource::Machine => "entity_type",
        Resource::Entity => "entity_id",
        Resource::Bridge => "bridge_id",
        Resource::Batch => "batch_id",
        Resource::Node => "node_id",
        Resource::Token => "id",
    }
}
