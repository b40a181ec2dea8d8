//! What was acknowledged.

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;

/// What was acknowledged, and what therefore has to be.
#[derive(Debug, Default)]
pub struct Ledger {
    /// How many calls, by RPC.
    pub calls: BTreeMap<&'static str, usize>,
    /// Workflows, and the state in which each was left.
    pub workflows: Vec<(Uuid, &'static str)>,
    /// Those that were deleted.
    pub deleted_workflows: Vec<Uuid>,
    /// Steps of workflows that are there.
    pub steps: Vec<Uuid>,
    /// Stamps, which stay when their workflow goes.
    pub stamps: Vec<Uuid>,
    /// Rows of the journal whose ids callers chose.
    pub moves: Vec<Uuid>,
    /// Entities of a single caller, and the state in which each was left.
    pub entities: Vec<(Uuid, String)>,
    /// Batches: the bridge, the batch, and how many items it added.
    pub batches: Vec<(Uuid, Uuid, i64)>,
    /// Bridges of a single caller, and their items.
    pub bridges: Vec<(Uuid, i64)>,
    /// Those that were deleted.
    pub deleted_bridges: Vec<Uuid>,
    /// Nodes.
    pub nodes: Vec<String>,
    /// Those that were deregistered.
    pub deleted_nodes: Vec<String>,
    /// Machines, and their versions.
    pub machines: Vec<(String, i32)>,
    /// Those that were deleted.
    pub deleted_machines: Vec<String>,
    /// What was refused, which nothing should have been.
    pub refused: Vec<String>,
}

impl Ledger {
    /// Notes that a call was acknowledged.
    pub fn count(&mut self, rpc: &'static str) {
        *self.calls.entry(rpc).or_default() += 1;
    }

    /// How many calls were acknowledged.
    pub fn total(&self) -> usize {
        self.calls.values().sum()
    }

    /// Adds what another caller has.
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
