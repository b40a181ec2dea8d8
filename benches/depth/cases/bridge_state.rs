//! BridgeStateService.

use bridgebook::proto::v1::{
    GetBridgeStateRequest, GetBridgeStateResponse, GetBridgeStatsRequest, GetBridgeStatsResponse,
    ListBridgeStatesRequest, ListBridgeStatesResponse,
};
use serde_json::json;

use super::document;
use crate::{
    case::{Ask, Case},
    world::{Kind, LARGE, World},
};

/// The cases of the service.
pub fn cases(world: World) -> Vec<Case> {
    let get = Case::new(
        "BridgeStateService/GetBridgeState",
        "",
        move |ask| {
            let number = ask.number % (world.bridges() / 2) * 2;
            GetBridgeStateRequest {
                namespace: LARGE.to_owned(),
                bridge_id: world.id(Kind::Bridge, number, 0).to_string(),
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
    cases.extend(lists(world));
    cases.push(stats.grows());
    cases
}

fn lists(world: World) -> Vec<Case> {
    let list = |title, filter: fn(World, &Ask) -> ListBridgeStatesRequest| {
        Case::new(
            "BridgeStateService/ListBridgeStates",
            title,
            move |ask| ListBridgeStatesRequest {
                namespace: LARGE.to_owned(),
                page_size: ask.page_size,
                page_token: ask.page_token.clone(),
                ..filter(world, &ask)
            },
            ListBridgeStatesResponse::default,
        )
    };
    let newest = |_: World, _: &Ask| ListBridgeStatesRequest::default();
    vec![
        list("newest", newest),
        list("a page in the middle", newest).after(world.bridges() / 4),
        list("by state", |_, _| ListBridgeStatesRequest {
            current_fsm_state: "IDLE".to_owned(),
            ..ListBridgeStatesRequest::default()
        }),
        list("by rare metadata", |world, ask| ListBridgeStatesRequest {
            // Without the last rack, which may not be full.
            aggregation_metadata: document(json!({"rack": ask.number % (world.bridges() / 40)})),
            ..ListBridgeStatesRequest::default()
        }),
    ]
}
