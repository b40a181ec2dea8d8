//! Bridges: as they are stored, to read, to list, to add up, to delete.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use crate::{
    db::schema::bridge_states,
    domain::{
        digest::RequestDigest,
        id::{BridgeId, TransitionId},
        json::JsonObject,
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
    },
};

/// A row of bridge_states.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = bridge_states)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Bridge {
    pub bridge_id: BridgeId,
    pub namespace: String,
    pub total_workflows_processed: i64,
    pub total_items_aggregated: i64,
    pub aggregation_metadata: JsonObject,
    pub current_fsm_state: String,
    pub last_aggregation_timestamp: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub revision: i64,
    pub request_digest: Option<RequestDigest>,
}

impl PageRow for Bridge {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        let last_activity = self.last_aggregation_timestamp.unwrap_or(self.created_at);
        (last_activity, self.bridge_id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.aggregation_metadata.wire_len()
    }
}

/// A bridge to read.
#[derive(Debug)]
pub struct BridgeQuery {
    /// Which.
    pub bridge_id: BridgeId,
}

/// Which bridges to list.
#[derive(Debug)]
pub struct BridgeFilter {
    /// In this state.
    pub current_fsm_state: Option<String>,
    /// Active after this time.
    pub active_after: Option<DateTime<Utc>>,
    /// Active before this time.
    pub active_before: Option<DateTime<Utc>>,
    /// With a document that contains this; anything contains the empty object.
    pub aggregation_metadata: JsonObject,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}

/// A bridge to delete.
#[derive(Debug)]
pub struct BridgeDeletion {
    /// The id of its row in the journal.
    pub id: TransitionId,
    /// Which.
    pub bridge_id: BridgeId,
    /// Whether it is fine if it is not there.
    pub allow_missing: bool,
}

/// Asks for the sums of a namespace.
#[derive(Debug)]
pub struct StatsQuery;

/// The sums over all bridges of a namespace; those that are too large for their
/// type are as large as it can say.
#[derive(Debug)]
pub struct BridgeStats {
    /// The sum of total_workflows_processed.
    pub total_workflows: i64,
    /// The sum of total_items_aggregated.
    pub total_items: i64,
    /// How many bridges there are.
    pub bridge_count: i64,
    /// When one of them last aggregated.
    pub latest_activity: Option<DateTime<Utc>>,
}
