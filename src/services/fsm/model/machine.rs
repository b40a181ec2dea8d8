//! Machines: the built-in types, the stored row, and the requests to put, read, list and delete.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::Definition;
use crate::{
    db::schema::fsm_machines,
    domain::text_enum::text_enum,
    domain::{
        digest::RequestDigest,
        id::MachineChangeId,
        page::{PageRequest, PageRow, ROW_BYTES},
    },
    services::workflow,
};

text_enum! {
    /// The entity types of other services, which move their entities themselves.
    pub enum BuiltIn {
        /// The workflows of WorkflowService.
        Workflow = "workflow",
        /// The bridges of BridgeStateService.
        Bridge = "bridge",
        /// The nodes of RegistryService.
        Node = "node",
    }
}

impl BuiltIn {
    /// Returns the built-in type with this name.
    #[must_use]
    pub fn from_name(entity_type: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|it| it.as_str() == entity_type).copied()
    }

    /// Returns whether tenants may put a machine for the type.
    #[must_use]
    pub fn allows_custom_machine(self) -> bool {
        match self {
            BuiltIn::Bridge => true,
            BuiltIn::Workflow | BuiltIn::Node => false,
        }
    }

    /// Returns the RPCs that move entities of the type.
    #[must_use]
    pub fn move_rpc(self) -> &'static str {
        match self {
            BuiltIn::Workflow => "WorkflowService/TransitionWorkflow",
            BuiltIn::Bridge => {
                "BridgeStateService/UpsertBridgeState or BridgeStateService/AccumulateBridgeState"
            }
            BuiltIn::Node => "RegistryService/Heartbeat",
        }
    }

    /// Returns the RPC that lists entities of the type.
    #[must_use]
    pub fn list_rpc(self) -> &'static str {
        match self {
            BuiltIn::Workflow => "WorkflowService/ListWorkflows",
            BuiltIn::Bridge => "BridgeStateService/ListBridgeStates",
            BuiltIn::Node => "RegistryService/ListNodes",
        }
    }

    /// Returns the RPC that reads an entity of the type.
    #[must_use]
    pub fn get_rpc(self) -> &'static str {
        match self {
            BuiltIn::Workflow => "WorkflowService/GetWorkflow",
            BuiltIn::Bridge => "BridgeStateService/GetBridgeState",
            BuiltIn::Node => "RegistryService/GetNode",
        }
    }
}

/// The request to put a machine.
#[derive(Debug)]
pub struct NewMachine {
    /// The id of the change, which the service makes for the call.
    pub id: MachineChangeId,
    /// The type of the entities that the machine moves.
    pub entity_type: String,
    /// The states and moves.
    pub definition: Definition,
    /// The digest of the definition.
    pub digest: RequestDigest,
    /// Whether entities may stay in states that the machine does not have.
    pub allow_stranded: bool,
    /// The version that the caller expects to replace; 0 for none, unset for any.
    pub expected_version: Option<i32>,
}

/// A row of fsm_machines.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = fsm_machines)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Machine {
    pub namespace: String,
    pub entity_type: String,
    pub version: i32,
    pub definition: Definition,
    pub definition_digest: RequestDigest,
    pub created_at: DateTime<Utc>,
}

impl PageRow for Machine {
    type Position = String;

    fn position(&self) -> String {
        self.entity_type.clone()
    }

    fn size(&self) -> usize {
        // A tag and a length before each text and each move; a move has three texts.
        let count = self.definition.moves.len() * 4 + self.definition.terminal_states.len();
        ROW_BYTES + self.definition.text_len() + count * 2
    }
}

/// A version of a machine in a response: a stored one, or the built-in one.
#[derive(Debug)]
pub struct MachineVersion {
    /// The namespace of the caller.
    pub namespace: String,
    /// The type of the entities that the machine moves.
    pub entity_type: String,
    /// The version; 0 for the built-in machine.
    pub version: i32,
    /// The states and moves.
    pub definition: Definition,
    /// The time at which it was put; `None` for the built-in machine.
    pub created_at: Option<DateTime<Utc>>,
}

impl MachineVersion {
    /// Returns the lifecycle of workflows as a machine of the caller's namespace.
    #[must_use]
    pub fn of_workflows(namespace: String) -> Self {
        MachineVersion {
            namespace,
            entity_type: workflow::model::ENTITY_TYPE.to_owned(),
            version: 0,
            definition: Definition::of_workflows(),
            created_at: None,
        }
    }
}

impl From<Machine> for MachineVersion {
    fn from(machine: Machine) -> Self {
        MachineVersion {
            namespace: machine.namespace,
            entity_type: machine.entity_type,
            version: machine.version,
            definition: machine.definition,
            created_at: Some(machine.created_at),
        }
    }
}

/// The request to read a machine.
#[derive(Debug)]
pub struct MachineQuery {
    /// The type of the entities that the machine moves.
    pub entity_type: String,
    /// The version; unset for the current one.
    pub version: Option<i32>,
}

/// The request to list machines.
#[derive(Debug)]
pub struct MachineFilter {
    /// The requested page.
    pub page: PageRequest<String>,
}

/// The request to delete a machine.
#[derive(Debug)]
pub struct MachineDeletion {
    /// The id of the change, which the service makes for the call.
    pub id: MachineChangeId,
    /// The type of the entities that the machine moves.
    pub entity_type: String,
    /// Whether to answer `false`, and not with an error, if the machine is missing.
    pub allow_missing: bool,
}
