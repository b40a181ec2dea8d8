//! FsmService.

use bridgebook::proto::v1::{
    GetEntityRequest, GetEntityResponse, GetMachineRequest, GetMachineResponse,
    GetTransitionStatsRequest, GetTransitionStatsResponse, ListEntitiesRequest,
    ListEntitiesResponse, ListMachinesRequest, ListMachinesResponse, ListTransitionsRequest,
    ListTransitionsResponse, TransitionOrder,
};
use prost_types::Duration;

use super::{hours, timestamp};
use crate::{
    case::{Ask, Case},
    fill::entity_type,
    world::{Kind, LARGE, ORDER, World},
};

/// The cases of the service.
pub fn cases(world: World) -> Vec<Case> {
    let mut cases = machines();
    cases.push(Case::new(
        "FsmService/GetEntity",
        "",
        move |ask| GetEntityRequest {
            namespace: LARGE.to_owned(),
            entity_type: ORDER.to_owned(),
            entity_id: order(world, &ask),
        },
        GetEntityResponse::default,
    ));
    cases.extend(entities(world));
    cases.extend(transitions(world));
    cases.extend(stats(world));
    cases
}

/// One of the large tenant's orders.
fn order(world: World, ask: &Ask) -> String {
    let begin = ask.number % (world.entities() / 2) * 2;
    let mut entities = (begin..).step_by(2).map(|next| next % world.entities());
    let order = entities.find(|entity| entity_type(*entity) == ORDER);
    world
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
        |ask| ListMachinesRequest {
            namespace: LARGE.to_owned(),
            page_size: ask.page_size,
            page_token: ask.page_token,
        },
        ListMachinesResponse::default,
    );
    vec![get, list]
}

fn entities(world: World) -> Vec<Case> {
    let list = |title, current_state: &'static str| {
        Case::new(
            "FsmService/ListEntities",
            title,
            move |ask| ListEntitiesRequest {
                namespace: LARGE.to_owned(),
                page_size: ask.page_size,
                page_token: ask.page_token,
                entity_type: ORDER.to_owned(),
                current_state: current_state.to_owned(),
                ..ListEntitiesRequest::default()
            },
            ListEntitiesResponse::default,
        )
    };
    vec![
        list("of a type", ""),
        list("by state", "RETURNED"),
        list("a page in the middle", "").after(world.entities() / 4),
    ]
}

fn transitions(world: World) -> Vec<Case> {
    let list = |title, filter: fn(World, &Ask) -> ListTransitionsRequest| {
        Case::new(
            "FsmService/ListTransitions",
            title,
            move |ask| {
                let filter = filter(world, &ask);
                ListTransitionsRequest {
                    namespace: LARGE.to_owned(),
                    page_size: ask.page_size,
                    page_token: ask.page_token,
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
    let newest = |_: World, _: &Ask| ListTransitionsRequest {
        order: TransitionOrder::NewestFirst.into(),
        ..ListTransitionsRequest::default()
    };
    vec![
        list("of an entity", |world, ask| ListTransitionsRequest {
            entity_id: order(world, ask),
            ..ListTransitionsRequest::default()
        }),
        list("of a workflow", |world, ask| {
            let number = ask.number % (world.workflows / 2) * 2;
            ListTransitionsRequest {
                entity_type: "workflow".to_owned(),
                entity_id: world.id(Kind::Workflow, number, 0).to_string(),
                ..ListTransitionsRequest::default()
            }
        }),
        list("newest of a type", newest),
        list("a page in the middle", newest).after(world.workflows / 5),
        list("since", |world, ask| ListTransitionsRequest {
            created_after: timestamp(world.time(ask.number % (world.workflows / 2))),
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

fn stats(world: World) -> Vec<Case> {
    /// So many workflows began in the window that has as many moves in every database.
    const RECENT: u64 = 200;
    let stats = |title, is_of_entity: bool, within: fn(World) -> Option<Duration>| {
        Case::new(
            "FsmService/GetTransitionStats",
            title,
            move |ask| GetTransitionStatsRequest {
                namespace: LARGE.to_owned(),
                entity_type: ORDER.to_owned(),
                entity_id: match is_of_entity {
                    true => order(world, &ask),
                    false => String::new(),
                },
                created_within: within(world),
            },
            GetTransitionStatsResponse::default,
        )
    };
    vec![
        stats("of an entity", true, |_| hours(24 * 40)),
        stats("of the last 90 moves", false, |world| {
            // By the clock, which goes on while we measure.
            let recent = chrono::Utc::now() - world.time(world.workflows - RECENT);
            Some(Duration {
                seconds: recent.num_seconds(),
                nanos: 0,
            })
        }),
        stats("of a day", false, |_| hours(24)).grows(),
    ]
}
