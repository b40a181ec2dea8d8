//! The journal: to list, to count.

use chrono::{DateTime, Utc};

use crate::{
    db::journal::Transition,
    domain::{
        id::EntityId,
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
    },
};

/// Where a row of the journal stands: by its time, and among those of its time
/// where the row with this id stands. Not by its `seq`, which is written into
/// page tokens then: it counts the moves of all tenants.
impl PageRow for Transition {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.created_at, self.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.transition_data.wire_len()
    }
}

/// Which moves to list.
#[derive(Debug)]
pub struct TransitionFilter {
    /// Of entities of this type.
    pub entity_type: String,
    /// Of this entity.
    pub entity_id: Option<EntityId>,
    /// By this event.
    pub transition_event: Option<String>,
    /// From this state.
    pub from_state: Option<String>,
    /// To this state.
    pub to_state: Option<String>,
    /// Made after this time.
    pub created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    pub created_before: Option<DateTime<Utc>>,
    /// Whether the newest come first.
    pub is_newest_first: bool,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}

/// Which moves to count.
#[derive(Debug)]
pub struct StatsFilter {
    /// Of entities of this type.
    pub entity_type: String,
    /// Of this entity.
    pub entity_id: Option<EntityId>,
    /// Made within this many microseconds before the database's present.
    pub created_within_micros: i64,
}

/// How often entities went from one state to another.
#[derive(Debug)]
pub struct TransitionStats {
    /// The state that they left; `None` for first moves.
    pub from_state: Option<String>,
    /// The state that they went to.
    pub to_state: String,
    /// How often.
    pub transition_count: i64,
    /// How long they had been in `from_state` on average, in milliseconds.
    pub mean_time_in_state_ms: Option<f64>,
}
