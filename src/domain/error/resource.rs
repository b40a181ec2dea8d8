//! The kinds of rows that errors name.

use std::fmt;

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

impl Resource {
    /// Returns the field that names a row of this kind.
    pub(super) fn id_field(self) -> &'static str {
        match self {
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

    /// Returns the words for a row of this kind by a field that names it: `workflow X`, or
    /// `workflow with correlation_id X`.
    pub(super) fn named(self, field: &str, name: &str) -> String {
        match field == "id" || field == self.id_field() {
            true => format!("{self} {name}"),
            false => format!("{self} with {field} {name}"),
        }
    }

    /// Returns the reason of NOT_FOUND.
    pub(super) fn not_found(self) -> &'static str {
        match self {
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

    /// Returns where else an id may be taken.
    pub(super) fn conflict_scope(self) -> &'static str {
        // The id of a batch is unique within its bridge.
        if self == Resource::Batch {
            return "";
        }
        ", or in another namespace"
    }

    /// Returns what a caller does whose id is taken.
    pub(super) fn conflict_remedy(self) -> &'static str {
        match self {
            Resource::Token => {
                "its credential cannot be shown again, so create a token with another id"
            }
            Resource::Batch => {
                "retry with the original content; under another id the batch would count twice"
            }
            Resource::Workflow | Resource::Bridge => {
                "choose another one, or retry with the original content; the id of a large one that \
                 was just deleted is free some minutes later"
            }
            Resource::Step
            | Resource::Stamp
            | Resource::Transition
            | Resource::Machine
            | Resource::Entity
            | Resource::Node => "choose another one, or retry with the original content",
        }
    }

    /// Returns what counts its changes: machines have versions, rows have revisions.
    pub(super) fn counter(self) -> &'static str {
        if self == Resource::Machine {
            "version"
        } else {
            "revision"
        }
    }
}
