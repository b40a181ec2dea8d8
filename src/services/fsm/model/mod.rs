//! The domain types of machines, entities and the journal, and the rules of a move.

mod definition;
mod entity;
mod history;
mod machine;
mod mermaid;
mod transition;
mod watch;

pub use definition::{Definition, FsmMove};
pub use entity::{Entity, EntityDetails, EntityFilter, EntityKey};
pub use history::{StatsFilter, TransitionFilter, TransitionStats};
pub use machine::{
    BuiltIn, Machine, MachineDeletion, MachineFilter, MachineQuery, MachineVersion, NewMachine,
};
pub use transition::{Moved, NewTransition, WantedMove};
pub use watch::{PresentState, WatchBegin, WatchRequest};

/// Maximum number of moves of a machine, and of its terminal states: more than a diagram can
/// show, and still fast to search at every move.
pub const MAX_MOVES: usize = 1000;
