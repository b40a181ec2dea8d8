//! Bridges: the stored row, and the requests to read, list, sum up and delete.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::BridgeView;
use crate::{
    db::{journal::Xid, schema::bridge_states},
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
    pub consumed_xid: Option<Xid>,
    pub consumed_seq: Option<i64>,
    pub consumed_transition_id: Option<TransitionId>,
    pub consumed_digest: Option<RequestDigest>,
}

impl PageRow for Bridge {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        let last_activity = self.last_aggregation_timestamp.unwrap_or(self.created_at);
        (last_activity, self.bridge_id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.namespace.len() + self.aggregation_metadata.wire_len()
    }
}

impl PageRow for BridgeView {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        self.bridge.position()
    }

    fn size(&self) -> usize {
        self.bridge.size()
    }
}

/// The request to read a bridge.
#[derive(Debug)]
pub struct BridgeQuery {
    /// The id of the bridge.
    pub bridge_id: BridgeId,
}

/// The filter of a list of bridges.
#[derive(Debug)]
pub struct BridgeFilter {
    /// Selects bridges in this state.
    pub current_fsm_state: Option<String>,
    /// Selects bridges that were last active after this time.
    pub active_after: Option<DateTime<Utc>>,
    /// Selects bridges that were last active before this time.
    pub active_before: Option<DateTime<Utc>>,
    /// Selects bridges whose document contains this one; all contain the empty one.
    pub aggregation_metadata: JsonObject,
    /// The requested page.
    pub page: PageRequest<TimePosition>,
}

/// The request to delete a bridge.
#[derive(Debug)]
pub struct BridgeDeletion {
    /// The id of the move in the journal.
    pub id: TransitionId,
    /// The id of the bridge.
    pub bridge_id: BridgeId,
    /// Whether to answer `false`, and not with an error, if the bridge is missing.
    pub allow_missing: bool,
}

/// The request for the sums of a namespace.
#[derive(Debug)]
pub struct StatsQuery;

/// The sums over all bridges of a namespace. A sum that exceeds `i64` is `i64::MAX`.
#[derive(Debug)]
pub struct BridgeStats {
    /// The sum of total_workflows_processed.
    pub total_workflows: i64,
    /// The sum of total_items_aggregated.
    pub total_items: i64,
    /// Number of bridges.
    pub bridge_count: i64,
    /// The time of the latest aggregation.
    pub latest_activity: Option<DateTime<Utc>>,
}
