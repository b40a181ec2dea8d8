//! Records the acknowledged writes.

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;

/// The acknowledged writes, and the rows that must therefore exist.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The number of calls by RPC.
    pub calls: BTreeMap<&'static str, usize>,
    /// Existing workflows and their final states.
    pub workflows: Vec<(Uuid, &'static str)>,
    /// Deleted workflows.
    pub deleted_workflows: Vec<Uuid>,
    /// Steps of existing workflows.
    pub steps: Vec<Uuid>,
    /// Stamps, which outlive their workflow.
    pub stamps: Vec<Uuid>,
    /// Journal rows with ids that callers chose.
    pub moves: Vec<Uuid>,
    /// Entities of a single caller and their final states.
    pub entities: Vec<(Uuid, String)>,
    /// Batches: the bridge, the batch, and the number of items.
    pub batches: Vec<(Uuid, Uuid, i64)>,
    /// Bridges of a single caller and their items.
    pub bridges: Vec<(Uuid, i64)>,
    /// Deleted bridges.
    pub deleted_bridges: Vec<Uuid>,
    /// Registered nodes.
    pub nodes: Vec<String>,
    /// Deregistered nodes.
    pub deleted_nodes: Vec<String>,
    /// Entity types with their latest machine version.
    pub machines: Vec<(String, i32)>,
    /// Deleted entity types.
    pub deleted_machines: Vec<String>,
    /// Errors of calls that failed for good. None is expected.
    pub refused: Vec<String>,
}

impl Ledger {
    /// Counts an acknowledged call.
    pub fn count(&mut self, rpc: &'static str) {
        *self.calls.entry(rpc).or_default() += 1;
    }

    /// Returns the number of acknowledged calls.
    pub fn total(&self) -> usize {
        self.calls.values().sum()
    }

    /// Adds the ledger of another caller.
    pub fn add(&mut self, other: Ledger) {
        for (rpc, count) in other.calls {
            *self.calls.entry(rpc).or_default() += count;
        }
        self.workflows.extend(other.workflows);
        self.deleted_workflows.extend(other.deleted_workflows);
        self.steps.extend(other.steps);
        self.stamps.extend(other.stamps);
        self.moves.extend(other.moves);
        self.entities.extend(other.entities);
        self.batches.extend(other.batches);
        self.bridges.extend(other.bridges);
        self.deleted_bridges.extend(other.deleted_bridges);
        self.nodes.extend(other.nodes);
        self.deleted_nodes.extend(other.deleted_nodes);
        self.machines.extend(other.machines);
        self.deleted_machines.extend(other.deleted_machines);
        self.refused.extend(other.refused);
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| acknowledged | calls |\n|---|--:|")?;
        for (rpc, count) in &self.calls {
            writeln!(f, "| {rpc} | {count} |")?;
        }
        writeln!(f, "| all | {} |", self.total())
    }
}
