//! Machines: to put, as they are stored, to read, to list, to delete.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::Definition;
use crate::{
    db::schema::fsm_machines,
    domain::text_enum::text_enum,
    domain::{
        digest::RequestDigest,
        page::{PageRequest, PageRow, ROW_BYTES},
    },
    services::workflow,
};

text_enum! {
    /// The entity types that belong to other services, which move them.
    pub enum BuiltIn {
        /// WorkflowService's.
        Workflow = "workflow",
        /// BridgeStateService's.
        Bridge = "bridge",
        /// RegistryService's.
        Node = "node",
    }
}

impl BuiltIn {
    /// The built-in type of this name.
    #[must_use]
    pub fn from_name(entity_type: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|it| it.as_str() == entity_type).copied()
    }

    /// Whether tenants may give it a machine of their own.
    #[must_use]
    pub fn allows_custom_machine(self) -> bool {
        match self {
            BuiltIn::Bridge => true,
            BuiltIn::Workflow | BuiltIn::Node => false,
        }
    }

    /// The RPCs that move such entities.
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

    /// The RPC that lists such entities.
    #[must_use]
    pub fn list_rpc(self) -> &'static str {
        match self {
            BuiltIn::Workflow => "WorkflowService/ListWorkflows",
            BuiltIn::Bridge => "BridgeStateService/ListBridgeStates",
            BuiltIn::Node => "RegistryService/ListNodes",
        }
    }

    /// The RPC that reads such an entity.
    #[must_use]
    pub fn get_rpc(self) -> &'static str {
        match self {
            BuiltIn::Workflow => "WorkflowService/GetWorkflow",
            BuiltIn::Bridge => "BridgeStateService/GetBridgeState",
            BuiltIn::Node => "RegistryService/GetNode",
        }
    }
}

/// A machine to put.
#[derive(Debug)]
pub struct NewMachine {
    /// The entities that it moves.
    pub entity_type: String,
    /// The moves.
    pub definition: Definition,
    /// Tells the same definition.
    pub digest: RequestDigest,
    /// Whether entities may be left in states that it does not have.
    pub allow_stranded: bool,
    /// The version that it is to replace, if that matters; 0 for none.
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
        // Two bytes before each text, of which a move has three, and before each move.
        let count = self.definition.moves.len() * 4 + self.definition.terminal_states.len();
        ROW_BYTES + self.definition.text_len() + count * 2
    }
}

/// A machine as it is answered: a stored one, or the built-in one.
#[derive(Debug)]
pub struct MachineVersion {
    /// Its namespace, the caller's.
    pub namespace: String,
    /// The entities that it moves.
    pub entity_type: String,
    /// Which version; 0 for the built-in one.
    pub version: i32,
    /// The moves.
    pub definition: Definition,
    /// When it was put; the built-in one never was.
    pub created_at: Option<DateTime<Utc>>,
}

impl MachineVersion {
    /// The lifecycle of workflows, for whoever asks.
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

/// A machine to read.
#[derive(Debug)]
pub struct MachineQuery {
    /// The entities that it moves.
    pub entity_type: String,
    /// Which version; the current one if not given.
    pub version: Option<i32>,
}

/// Which machines to list.
#[derive(Debug)]
pub struct MachineFilter {
    /// Which page.
    pub page: PageRequest<String>,
}

/// A machine to delete.
#[derive(Debug)]
pub struct MachineDeletion {
    /// The entities that it moves.
    pub entity_type: String,
    /// Whether it is fine if it is not there.
    pub allow_missing: bool,
}
