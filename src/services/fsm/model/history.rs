//! The journal: the filters of its list and of its statistics.

use chrono::{DateTime, Utc};

use crate::{
    db::journal::Transition,
    domain::{
        id::EntityId,
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
    },
};

/// The position of a row is its time and its id, and not its `seq`, by which the store orders
/// rows of the same time: `seq` counts the moves of all tenants, and a page token would
/// reveal it.
impl PageRow for Transition {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.created_at, self.id.0)
    }

    fn size(&self) -> usize {
        let states = self.from_state.as_ref().map_or(0, String::len) + self.to_state.len();
        ROW_BYTES + self.namespace.len() + states + self.transition_data.wire_len()
    }
}

/// The filter of a list of moves.
#[derive(Debug)]
pub struct TransitionFilter {
    /// Selects moves of entities of this type.
    pub entity_type: String,
    /// Selects moves of this entity.
    pub entity_id: Option<EntityId>,
    /// Selects moves by this event.
    pub transition_event: Option<String>,
    /// Selects moves that left this state.
    pub from_state: Option<String>,
    /// Selects moves that entered this state.
    pub to_state: Option<String>,
    /// Selects moves made after this time.
    pub created_after: Option<DateTime<Utc>>,
    /// Selects moves made before this time.
    pub created_before: Option<DateTime<Utc>>,
    /// Whether the newest moves come first.
    pub is_newest_first: bool,
    /// The requested page.
    pub page: PageRequest<TimePosition>,
}

/// The filter of the statistics.
#[derive(Debug)]
pub struct StatsFilter {
    /// Counts moves of entities of this type.
    pub entity_type: String,
    /// Counts moves of this entity.
    pub entity_id: Option<EntityId>,
    /// Counts moves made within this many microseconds before the database's now().
    pub created_within_micros: i64,
}

/// The statistics of the moves from one state to another.
#[derive(Debug)]
pub struct TransitionStats {
    /// The state that the moves left; `None` for first moves.
    pub from_state: Option<String>,
    /// The state that the moves entered.
    pub to_state: String,
    /// Number of moves.
    pub transition_count: i64,
    /// Average time in `from_state` before the move, in milliseconds.
    pub mean_time_in_state_ms: Option<f64>,
}
