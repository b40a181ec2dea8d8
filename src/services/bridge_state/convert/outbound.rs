//! Converts domain types to responses, which cannot fail.

use crate::{
    domain::{position::Position, time},
    proto::v1,
    services::{
        bridge_state::model::{Bridge, BridgeStats, BridgeView, Changed},
        convert::responses,
    },
};

impl From<Bridge> for v1::BridgeState {
    fn from(row: Bridge) -> Self {
        let consumed_through = Position::text_of(row.consumed(), &row.namespace);
        v1::BridgeState {
            bridge_id: row.bridge_id.to_string(),
            namespace: row.namespace,
            total_workflows_processed: row.total_workflows_processed,
            total_items_aggregated: row.total_items_aggregated,
            aggregation_metadata: Some(row.aggregation_metadata.into()),
            current_fsm_state: row.current_fsm_state,
            last_aggregation_timestamp: row.last_aggregation_timestamp.map(time::to_proto),
            revision: row.revision,
            created_at: Some(time::to_proto(row.created_at)),
            updated_at: Some(time::to_proto(row.updated_at)),
            // The codec leaves out what does not fit.
            omitted_fields: Vec::new(),
            consumed_through,
            consumer_lag: None,
        }
    }
}

impl From<BridgeView> for v1::BridgeState {
    fn from(view: BridgeView) -> Self {
        v1::BridgeState {
            consumer_lag: view.consumer_lag,
            ..view.bridge.into()
        }
    }
}

impl From<Changed> for v1::UpsertBridgeStateResponse {
    fn from(changed: Changed) -> Self {
        v1::UpsertBridgeStateResponse {
            bridge_state: Some(changed.bridge.into()),
            applied: changed.applied,
            transition: changed.transition.map(Into::into),
        }
    }
}

impl From<Changed> for v1::AccumulateBridgeStateResponse {
    fn from(changed: Changed) -> Self {
        v1::AccumulateBridgeStateResponse {
            bridge_state: Some(changed.bridge.into()),
            applied: changed.applied,
            transition: changed.transition.map(Into::into),
        }
    }
}

impl From<BridgeStats> for v1::GetBridgeStatsResponse {
    fn from(stats: BridgeStats) -> Self {
        v1::GetBridgeStatsResponse {
            total_workflows: stats.total_workflows,
            total_items: stats.total_items,
            bridge_count: stats.bridge_count,
            latest_activity: stats.latest_activity.map(time::to_proto),
        }
    }
}

responses! {
    GetBridgeStateResponse { bridge_state: BridgeView }
    ListBridgeStatesResponse { bridge_states: Page<BridgeView> }
    DeleteBridgeStateResponse { deleted: Deleted }
}
