//! Requests. Every violation is collected.

use std::mem;

use crate::{
    bridge_state::model::{
        BridgeChange, BridgeDeletion, BridgeFilter, BridgeQuery, MetadataUpdate, StatsQuery, Totals,
    },
    digest::RequestDigest,
    id::TransitionId,
    json::{JsonObject, Struct},
    page::PageRequest,
    proto::v1,
    tenant_requests, time,
    validate::{Checker, Violations},
};

tenant_requests!(
    v1::UpsertBridgeStateRequest,
    v1::AccumulateBridgeStateRequest,
    v1::GetBridgeStateRequest,
    v1::ListBridgeStatesRequest,
    v1::DeleteBridgeStateRequest,
    v1::GetBridgeStatsRequest,
);

impl TryFrom<v1::UpsertBridgeStateRequest> for BridgeChange {
    type Error = Violations;

    fn try_from(mut request: v1::UpsertBridgeStateRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        request.bridge_id.make_ascii_lowercase();
        request.last_aggregation_timestamp =
            request.last_aggregation_timestamp.map(time::in_micros);
        let update = metadata_update(&mut check, &mut request.metadata_update);
        let request_digest = RequestDigest::of(&request);
        let last_aggregation = request.last_aggregation_timestamp.as_ref();
        let totals = Totals::Absolute {
            workflows: check.optional_count(
                "total_workflows_processed",
                request.total_workflows_processed,
            ),
            items: check.optional_count("total_items_aggregated", request.total_items_aggregated),
            last_aggregation: check.optional_time("last_aggregation_timestamp", last_aggregation),
            expected_revision: check.optional_count("expected_revision", request.expected_revision),
        };
        let change = BridgeChange {
            bridge_id: check.id("bridge_id", &request.bridge_id),
            totals,
            metadata: metadata(&mut check, update, request.aggregation_metadata),
            to_state: check.optional_state("current_fsm_state", request.current_fsm_state),
            transition_event: check.optional_name("transition_event", request.transition_event),
            transition_id: TransitionId::generate(),
            request_digest,
        };
        check.finish(change)
    }
}

impl TryFrom<v1::AccumulateBridgeStateRequest> for BridgeChange {
    type Error = Violations;

    fn try_from(mut request: v1::AccumulateBridgeStateRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        request.bridge_id.make_ascii_lowercase();
        let batch_id = check.id("batch_id", &mem::take(&mut request.batch_id));
        let update = metadata_update(&mut check, &mut request.metadata_update);
        let request_digest = RequestDigest::of(&request);
        let mut count = |field, value| {
            let count = check.optional_count(field, Some(value));
            count.unwrap_or_default()
        };
        let totals = Totals::Batch {
            batch_id,
            workflows: count("workflows_processed", request.workflows_processed),
            items: count("items_aggregated", request.items_aggregated),
        };
        let change = BridgeChange {
            bridge_id: check.id("bridge_id", &request.bridge_id),
            totals,
            metadata: metadata(&mut check, update, request.aggregation_metadata),
            to_state: check.optional_state("current_fsm_state", request.current_fsm_state),
            transition_event: check.optional_name("transition_event", request.transition_event),
            transition_id: TransitionId::generate(),
            request_digest,
        };
        check.finish(change)
    }
}

/// Reads what a document is to do. Nothing said, and what that means, are the
/// same content.
fn metadata_update(check: &mut Checker, number: &mut i32) -> MetadataUpdate {
    match v1::MetadataUpdate::try_from(*number) {
        Ok(v1::MetadataUpdate::Unspecified | v1::MetadataUpdate::Merge) => {
            *number = v1::MetadataUpdate::Merge.into();
            MetadataUpdate::Merge
        }
        Ok(v1::MetadataUpdate::Replace) => MetadataUpdate::Replace,
        Err(_) => {
            check.violation(
                "metadata_update",
                format!("must be a MetadataUpdate, not {number}"),
            );
            MetadataUpdate::default()
        }
    }
}

fn metadata(
    check: &mut Checker,
    update: MetadataUpdate,
    document: Option<Struct>,
) -> Option<(MetadataUpdate, JsonObject)> {
    document.map(|document| (update, check.json("aggregation_metadata", Some(document))))
}

impl TryFrom<v1::GetBridgeStateRequest> for BridgeQuery {
    type Error = Violations;

    fn try_from(request: v1::GetBridgeStateRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let bridge_id = check.id("bridge_id", &request.bridge_id);
        check.finish(BridgeQuery { bridge_id })
    }
}

impl TryFrom<v1::ListBridgeStatesRequest> for BridgeFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListBridgeStatesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        let page = PageRequest::read(&mut check, size, &token, "ListBridgeStates", &request);
        let filter = BridgeFilter {
            current_fsm_state: check.optional_state("current_fsm_state", request.current_fsm_state),
            active_after: check.optional_time("active_after", request.active_after.as_ref()),
            active_before: check.optional_time("active_before", request.active_before.as_ref()),
            aggregation_metadata: check.json("aggregation_metadata", request.aggregation_metadata),
            page,
        };
        check.finish(filter)
    }
}

impl TryFrom<v1::DeleteBridgeStateRequest> for BridgeDeletion {
    type Error = Violations;

    fn try_from(request: v1::DeleteBridgeStateRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let deletion = BridgeDeletion {
            id: TransitionId::generate(),
            bridge_id: check.id("bridge_id", &request.bridge_id),
            allow_missing: request.allow_missing,
        };
        check.finish(deletion)
    }
}

impl TryFrom<v1::GetBridgeStatsRequest> for StatsQuery {
    type Error = Violations;

    fn try_from(_: v1::GetBridgeStatsRequest) -> Result<Self, Violations> {
        Ok(StatsQuery)
    }
}
