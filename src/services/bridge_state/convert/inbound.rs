//! Converts requests to domain types, and collects every violation.

use std::mem;

use crate::{
    domain::{
        digest::RequestDigest,
        id::TransitionId,
        json::{JsonObject, Struct},
        position::Position,
        time,
    },
    proto::v1,
    rpc::{
        admit::FromRequest,
        page_token::read_page,
        validate::{Validator, proto_enum},
    },
    services::bridge_state::model::{
        BridgeChange, BridgeDeletion, BridgeFilter, BridgeQuery, Consumption, MetadataUpdate,
        StatsQuery, Totals,
    },
};

impl FromRequest<v1::UpsertBridgeStateRequest> for BridgeChange {
    fn from_request(mut request: v1::UpsertBridgeStateRequest, check: &mut Validator) -> Self {
        request.bridge_id.make_ascii_lowercase();
        request.last_aggregation_timestamp = request
            .last_aggregation_timestamp
            .map(time::truncate_to_micros);
        let update = metadata_update(check, &mut request.metadata_update);
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
        BridgeChange {
            bridge_id: check.id("bridge_id", &request.bridge_id),
            totals,
            metadata: metadata(check, update, request.aggregation_metadata),
            to_state: check.optional_state("current_fsm_state", request.current_fsm_state),
            transition_event: check.optional_name("transition_event", request.transition_event),
            transition_id: TransitionId::generate(),
            request_digest,
        }
    }
}

impl FromRequest<v1::AccumulateBridgeStateRequest> for BridgeChange {
    fn from_request(mut request: v1::AccumulateBridgeStateRequest, check: &mut Validator) -> Self {
        request.bridge_id.make_ascii_lowercase();
        let batch_id = mem::take(&mut request.batch_id);
        // Either of them identifies the batch.
        if batch_id.is_empty() && request.consumed_through.is_empty() {
            check.violation("batch_id", "is required without consumed_through");
        }
        let batch_id = check.optional_id("batch_id", &batch_id);
        let update = metadata_update(check, &mut request.metadata_update);
        let request_digest = RequestDigest::of(&request);
        let totals = Totals::Batch {
            batch_id,
            workflows: check.count("workflows_processed", request.workflows_processed),
            items: check.count("items_aggregated", request.items_aggregated),
            consumes: consumption(check, &request),
        };
        BridgeChange {
            bridge_id: check.id("bridge_id", &request.bridge_id),
            totals,
            metadata: metadata(check, update, request.aggregation_metadata),
            to_state: check.optional_state("current_fsm_state", request.current_fsm_state),
            transition_event: check.optional_name("transition_event", request.transition_event),
            transition_id: TransitionId::generate(),
            request_digest,
        }
    }
}

/// Checks what a batch consumes of the journal.
fn consumption(
    check: &mut Validator,
    request: &v1::AccumulateBridgeStateRequest,
) -> Option<Consumption> {
    let mut position = |field, text: &str| match text {
        "" => Position::default(),
        text => check.position(field, &request.namespace, text),
    };
    let from = position("consumed_from", &request.consumed_from);
    let through = position("consumed_through", &request.consumed_through);
    if request.consumed_through.is_empty() {
        if !request.consumed_from.is_empty() {
            check.violation("consumed_from", "must be unset without consumed_through");
        }
        return None;
    }
    let is_invalid = through.is_origin() && !check.is_clean();
    if through <= from && !is_invalid {
        check.violation("consumed_through", "must be later than consumed_from");
    }
    Some(Consumption { from, through })
}

proto_enum!(MetadataUpdate = v1::MetadataUpdate {
    Merge = Merge,
    Replace = Replace,
});

/// Reads how the document is applied, and writes the default MERGE into an unset field, so
/// that the digest is the same for both.
fn metadata_update(check: &mut Validator, number: &mut i32) -> MetadataUpdate {
    if *number == 0 {
        *number = v1::MetadataUpdate::Merge.into();
    }
    let update = check.optional_enum("metadata_update", *number);
    update.unwrap_or_default()
}

fn metadata(
    check: &mut Validator,
    update: MetadataUpdate,
    document: Option<Struct>,
) -> Option<(MetadataUpdate, JsonObject)> {
    document.map(|document| (update, check.json("aggregation_metadata", Some(document))))
}

impl FromRequest<v1::GetBridgeStateRequest> for BridgeQuery {
    fn from_request(request: v1::GetBridgeStateRequest, check: &mut Validator) -> Self {
        let bridge_id = check.id("bridge_id", &request.bridge_id);
        BridgeQuery { bridge_id }
    }
}

impl FromRequest<v1::ListBridgeStatesRequest> for BridgeFilter {
    fn from_request(mut request: v1::ListBridgeStatesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        BridgeFilter {
            current_fsm_state: check
                .optional_stored_state("current_fsm_state", request.current_fsm_state),
            active_after: check.optional_time("active_after", request.active_after.as_ref()),
            active_before: check
                .optional_upper_bound("active_before", request.active_before.as_ref()),
            aggregation_metadata: check
                .json_filter("aggregation_metadata", request.aggregation_metadata),
            page,
        }
    }
}

impl FromRequest<v1::DeleteBridgeStateRequest> for BridgeDeletion {
    fn from_request(request: v1::DeleteBridgeStateRequest, check: &mut Validator) -> Self {
        BridgeDeletion {
            id: TransitionId::generate(),
            bridge_id: check.id("bridge_id", &request.bridge_id),
            allow_missing: request.allow_missing,
        }
    }
}

impl FromRequest<v1::GetBridgeStatsRequest> for StatsQuery {
    fn from_request(_: v1::GetBridgeStatsRequest, _: &mut Validator) -> Self {
        StatsQuery
    }
}
