//! Cases of FsmService.

use bridgebook::proto::v1::{
    GetEntityRequest, GetEntityResponse, GetMachineRequest, GetMachineResponse,
    GetTransitionStatsRequest, GetTransitionStatsResponse, ListEntitiesRequest,
    ListEntitiesResponse, ListMachinesRequest, ListMachinesResponse, ListTransitionsRequest,
    ListTransitionsResponse, TransitionOrder,
};
use prost_types::Duration;

use super::{hours, timestamp};
use crate::{
    case::{Case, Params},
    dataset::{Dataset, Kind, LARGE, ORDER},
    fill::entity_type,
};

/// Returns the cases of the service.
pub fn cases(dataset: Dataset) -> Vec<Case> {
    let mut cases = machines();
    cases.push(Case::new(
        "FsmService/GetEntity",
        "",
        move |params| GetEntityRequest {
            namespace: LARGE.to_owned(),
            entity_type: ORDER.to_owned(),
            entity_id: order(dataset, &params),
        },
        GetEntityResponse::default,
    ));
    cases.extend(entities(dataset));
    cases.extend(transitions(dataset));
    cases.extend(stats(dataset));
    cases
}

/// Returns the id of one of the large tenant's orders.
fn order(dataset: Dataset, params: &Params) -> String {
    let begin = params.number % (dataset.entities() / 2) * 2;
    let mut entities = (begin..).step_by(2).map(|next| next % dataset.entities());
    let order = entities.find(|entity| entity_type(*entity) == ORDER);
    dataset
        .id(Kind::Entity, order.unwrap_or(begin), 0)
        .to_string()
}

fn machines() -> Vec<Case> {
    let get = Case::new(
        "FsmService/GetMachine",
        "",
        |_| GetMachineRequest {
            namespace: LARGE.to_owned(),
            entity_type: ORDER.to_owned(),
            ..GetMachineRequest::default()
        },
        GetMachineResponse::default,
    );
    let list = Case::new(
        "FsmService/ListMachines",
        "",
        |params| ListMachinesRequest {
            namespace: LARGE.to_owned(),
            page_size: params.page_size,
            page_token: params.page_token,
        },
        ListMachinesResponse::default,
    );
    vec![get, list]
}

fn entities(dataset: Dataset) -> Vec<Case> {
    let list = |title, current_state: &'static str| {
        Case::new(
            "FsmService/ListEntities",
            title,
            move |params| ListEntitiesRequest {
                namespace: LARGE.to_owned(),
                page_size: params.page_size,
                page_token: params.page_token,
                entity_type: ORDER.to_owned(),
                current_state: current_state.to_owned(),
                ..ListEntitiesRequest::default()
            },
            ListEntitiesResponse::default,
        )
    };
    vec![
        list("by type", ""),
        list("by state", "RETURNED"),
        list("middle page", "").after(dataset.entities() / 4),
    ]
}

fn transitions(dataset: Dataset) -> Vec<Case> {
    let list = |title, filter: fn(Dataset, &Params) -> ListTransitionsRequest| {
        Case::new(
            "FsmService/ListTransitions",
            title,
            move |params| {
                let filter = filter(dataset, &params);
                ListTransitionsRequest {
                    namespace: LARGE.to_owned(),
                    page_size: params.page_size,
                    page_token: params.page_token,
                    entity_type: match filter.entity_type.is_empty() {
                        true => ORDER.to_owned(),
                        false => filter.entity_type,
                    },
                    ..filter
                }
            },
            ListTransitionsResponse::default,
        )
    };
    let newest = |_: Dataset, _: &Params| ListTransitionsRequest {
        order: TransitionOrder::NewestFirst.into(),
        ..ListTransitionsRequest::default()
    };
    vec![
        list("by entity", |dataset, params| ListTransitionsRequest {
            entity_id: order(dataset, params),
            ..ListTransitionsRequest::default()
        }),
        list("by workflow", |dataset, params| {
            let number = params.number % (dataset.workflows / 2) * 2;
            ListTransitionsRequest {
                entity_type: "workflow".to_owned(),
                entity_id: dataset.id(Kind::Workflow, number, 0).to_string(),
                ..ListTransitionsRequest::default()
            }
        }),
        list("newest of a type", newest),
        list("middle page", newest).after(dataset.workflows / 5),
        list("since a time", |dataset, params| ListTransitionsRequest {
            created_after: timestamp(dataset.time(params.number % (dataset.workflows / 2))),
            ..ListTransitionsRequest::default()
        }),
        list("newest of an event", |_, _| ListTransitionsRequest {
            transition_event: "return".to_owned(),
            order: TransitionOrder::NewestFirst.into(),
            ..ListTransitionsRequest::default()
        }),
        list("oldest to a state", |_, _| ListTransitionsRequest {
            to_state: "RETURNED".to_owned(),
            ..ListTransitionsRequest::default()
        }),
    ]
}

fn stats(dataset: Dataset) -> Vec<Case> {
    /// The number of workflows in the window that has the same number of moves in both databases.
    const RECENT: u64 = 200;
    let stats = |title, is_of_entity: bool, within: fn(Dataset) -> Option<Duration>| {
        Case::new(
            "FsmService/GetTransitionStats",
            title,
            move |params| GetTransitionStatsRequest {
                namespace: LARGE.to_owned(),
                entity_type: ORDER.to_owned(),
                entity_id: match is_of_entity {
                    true => order(dataset, &params),
                    false => String::new(),
                },
                created_within: within(dataset),
            },
            GetTransitionStatsResponse::default,
        )
    };
    vec![
        stats("by entity", true, |_| hours(24 * 40)),
        stats("last 90 moves", false, |dataset| {
            // Computed from the clock, which advances during the measurement.
            let recent = chrono::Utc::now() - dataset.time(dataset.workflows - RECENT);
            Some(Duration {
                seconds: recent.num_seconds(),
                nanos: 0,
            })
        }),
        stats("last day", false, |_| hours(24)).scales_with_data(),
    ]
}
