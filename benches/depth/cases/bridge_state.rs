//! Cases of BridgeStateService.

use bridgebook::proto::v1::{
    GetBridgeStateRequest, GetBridgeStateResponse, GetBridgeStatsRequest, GetBridgeStatsResponse,
    ListBridgeStatesRequest, ListBridgeStatesResponse,
};
use serde_json::json;

use super::document;
use crate::{
    case::{Case, Params},
    dataset::{Dataset, Kind, LARGE},
};

/// Returns the cases of the service.
pub fn cases(dataset: Dataset) -> Vec<Case> {
    let get = Case::new(
        "BridgeStateService/GetBridgeState",
        "",
        move |params| {
            let number = params.number % (dataset.bridges() / 2) * 2;
            GetBridgeStateRequest {
                namespace: LARGE.to_owned(),
                bridge_id: dataset.id(Kind::Bridge, number, 0).to_string(),
            }
        },
        GetBridgeStateResponse::default,
    );
    let stats = Case::new(
        "BridgeStateService/GetBridgeStats",
        "",
        |_| GetBridgeStatsRequest {
            namespace: LARGE.to_owned(),
        },
        GetBridgeStatsResponse::default,
    );
    let mut cases = vec![get];
    cases.extend(lists(dataset));
    cases.push(stats.scales_with_data());
    cases
}

fn lists(dataset: Dataset) -> Vec<Case> {
    let list = |title, filter: fn(Dataset, &Params) -> ListBridgeStatesRequest| {
        Case::new(
            "BridgeStateService/ListBridgeStates",
            title,
            move |params| ListBridgeStatesRequest {
                namespace: LARGE.to_owned(),
                page_size: params.page_size,
                page_token: params.page_token.clone(),
                ..filter(dataset, &params)
            },
            ListBridgeStatesResponse::default,
        )
    };
    let newest = |_: Dataset, _: &Params| ListBridgeStatesRequest::default();
    vec![
        list("newest", newest),
        list("middle page", newest).after(dataset.bridges() / 4),
        list("by state", |_, _| ListBridgeStatesRequest {
            current_fsm_state: "IDLE".to_owned(),
            ..ListBridgeStatesRequest::default()
        }),
        list("by rare metadata", |dataset, params| {
            ListBridgeStatesRequest {
                // Excludes the last rack, which may not be full.
                aggregation_metadata: document(
                    json!({"rack": params.number % (dataset.bridges() / 40)}),
                ),
                ..ListBridgeStatesRequest::default()
            }
        }),
    ]
}
