//! What machines and entities are, and by which rules an entity moves.

mod definition;
mod entity;
mod history;
mod machine;
mod mermaid;
mod transition;

pub use definition::{Definition, FsmMove};
pub use entity::{Entity, EntityDetails, EntityFilter, EntityKey};
pub use history::{StatsFilter, TransitionFilter, TransitionStats};
pub use machine::{
    BuiltIn, Machine, MachineDeletion, MachineFilter, MachineQuery, MachineVersion, NewMachine,
};
pub use transition::{Moved, NewTransition};

/// The most moves, and the most terminal states, of a machine: more than anybody
/// draws, and still read in no time at every move.
pub const MAX_MOVES: usize = 1000;
