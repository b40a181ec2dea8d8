//! Requests of BridgeStateService.

use bridgebook::proto::v1;

use super::Asked;

impl Asked<'_> {
    pub(super) fn upsert_bridge(&self) -> v1::UpsertBridgeStateRequest {
        v1::UpsertBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
            total_items_aggregated: Some(i64::from(self.call.variant)),
            aggregation_metadata: self.by.document(self.call.other),
            current_fsm_state: self.by.state(self.call.state),
            ..Default::default()
        }
    }

    pub(super) fn add_batch(&self) -> v1::AccumulateBridgeStateRequest {
        v1::AccumulateBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
            batch_id: self.other_id(),
            items_aggregated: 1 + i64::from(self.has(0)),
            aggregation_metadata: self.by.document(self.call.other),
            current_fsm_state: self.by.state(self.call.state),
            ..Default::default()
        }
    }

    pub(super) fn get_bridge(&self) -> v1::GetBridgeStateRequest {
        v1::GetBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
        }
    }

    pub(super) fn list_bridges(&self) -> v1::ListBridgeStatesRequest {
        v1::ListBridgeStatesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            ..Default::default()
        }
    }

    pub(super) fn delete_bridge(&self) -> v1::DeleteBridgeStateRequest {
        v1::DeleteBridgeStateRequest {
            namespace: self.namespace(),
            bridge_id: self.id(),
            allow_missing: self.has(0),
        }
    }

    pub(super) fn sum_bridges(&self) -> v1::GetBridgeStatsRequest {
        v1::GetBridgeStatsRequest {
            namespace: self.namespace(),
        }
    }
}
